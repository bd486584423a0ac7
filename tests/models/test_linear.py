"""Which networks are linear, and what their parameters are in pixel space."""

import pytest
import torch
from torch import nn

from trustml_cli.models.linear import linear_parameters
from trustml_cli.models.model import Normalize

SHAPE = (2, 3, 3)


def test_normalisation_is_folded_into_weights_and_bias() -> None:
    linear = nn.Linear(18, 4)
    network = nn.Sequential(Normalize((0.2, 0.6), (0.5, 0.25)), nn.Flatten(), linear)
    weights = linear.weight.detach().double().view(4, 2, 9) / torch.tensor([0.5, 0.25]).view(1, 2, 1)
    bias = linear.bias.detach().double() - (weights * torch.tensor([0.2, 0.6]).view(1, 2, 1)).sum((1, 2))
    expected = torch.cat([weights.flatten(1), bias[:, None]], 1)
    torch.testing.assert_close(linear_parameters(network, SHAPE), expected, rtol=0, atol=1e-6)


def test_several_linear_layers_are_one() -> None:
    first, second = nn.Linear(18, 7), nn.Linear(7, 3)
    found = linear_parameters(nn.Sequential(nn.Flatten(), first, nn.Dropout(0.5), second).train(), SHAPE)
    torch.testing.assert_close(found[:, :-1].float(), second.weight.detach() @ first.weight.detach())


@pytest.mark.parametrize("bend", [nn.ReLU(), nn.Tanh(), nn.Softmax(1)])
def test_what_bends_is_not_linear(bend: nn.Module) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 8), bend, nn.Linear(8, 3))
    with pytest.raises(ValueError, match="not linear"):
        linear_parameters(network, SHAPE)


def test_the_network_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).train()
    linear_parameters(network, SHAPE)
    assert network.training
    assert network[1].weight.dtype == torch.float32
    assert network[1].weight.requires_grad
