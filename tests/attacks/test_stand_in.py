"""What attacks ask in the place of a network says the same, and has the same gradients."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from tests.configs import choices, composed
from trustml_cli.attacks.attack import input_gradient
from trustml_cli.attacks.stand_in import stand_in
from trustml_cli.attacks.thin import ThinConv2d
from trustml_cli.build import build
from trustml_cli.models.model import Inputs

AFTER_POOLING = {"fast_cnn": 3}  # BatchNorms that no convolution comes right before, so that they stay


def unsettled(network: nn.Module) -> nn.Module:
    """The network frozen, as if it had seen data: no BatchNorm of it is the identity."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for values in (layer.running_var, layer.weight.data):
                assert values is not None
                values.uniform_(0.5, 2)
            for values in (layer.running_mean, layer.bias.data):
                assert values is not None
                values.normal_()
    return network.eval().requires_grad_(False)


def folds(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def thins(network: nn.Module) -> int:
    return sum(isinstance(layer, ThinConv2d) for layer in network.modules())


@pytest.mark.parametrize(
    "name", [name for name in choices("model") if name not in ("custom", "table_mlp", "torchvision")]
)
def test_the_stand_in_of_every_model_says_the_same(name: str) -> None:
    network = unsettled(
        build(composed(f"model={name}").model, "model").build(Inputs((3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3))
    )
    before = copy.deepcopy(network.state_dict())
    x, y = torch.rand(8, 3, 32, 32), torch.arange(8)
    fast = stand_in(network)
    assert folds(fast) == AFTER_POOLING.get(name, 0)
    assert (fast is network) == (folds(network) == 0 and not thins(fast))
    torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)
    ours, theirs = input_gradient(fast, x, y), input_gradient(network, x, y)
    close = (ours - theirs).abs() <= 1e-3 * theirs.abs() + 1e-5
    assert close.double().mean() > 0.95  # what rounds to the other side of a kink has another gradient
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not fast.training


def test_shortcuts_are_followed() -> None:
    network = unsettled(resnet18(num_classes=10))
    assert (folds(network), folds(stand_in(network))) == (20, 0)


class Moody(nn.Module):
    """Its forward pass depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 2))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits if x.mean() > 0.5 else -logits


def test_what_cannot_be_folded_stays_as_it_is() -> None:
    moody = Moody().eval()
    assert stand_in(moody) is moody
    training = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    assert stand_in(training) is training
