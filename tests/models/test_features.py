import pytest
import torch
from torch import nn

from trustml_cli.models.features import last_linear, logits_and_features


def test_features_are_what_the_last_linear_layer_is_given() -> None:
    torch.manual_seed(0)
    head = nn.Linear(5, 3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Sequential(head))
    x = torch.rand(7, 1, 2, 2)
    logits, features = logits_and_features(network, x)
    assert last_linear(network) is head
    assert features.shape == (7, 5)
    assert torch.equal(head(features), logits)
    assert torch.equal(network(x), logits)
    assert not head._forward_pre_hooks  # nothing stays behind


def test_a_network_without_linear_layer_says_so() -> None:
    with pytest.raises(ValueError, match="no linear layer"):
        last_linear(nn.Conv2d(1, 1, 1))
