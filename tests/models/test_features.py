import pytest
import torch
from torch import Tensor, nn

from trustml_cli.models.features import logits_and_features, output_layer


class HeadFirst(nn.Module):
    """The output layer is defined first, and another linear layer is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.unused = nn.Linear(5, 3), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.flatten(1)).relu())  # type: ignore[no-any-return]


def test_features_are_what_the_output_layer_is_given_wherever_it_is_defined() -> None:
    torch.manual_seed(0)
    network, x = HeadFirst(), torch.rand(7, 1, 2, 2)
    logits, features = logits_and_features(network, x)
    assert output_layer(network, x) is network.head
    assert features.shape == (7, 5)
    assert torch.equal(network.head(features), logits)
    assert torch.equal(network(x), logits)
    assert not any(layer._forward_pre_hooks for layer in network.modules())  # nothing stays behind


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()), nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 3, 2), nn.Flatten())],
    ids=["none", "one that is not the last"],
)
def test_a_network_whose_logits_come_from_no_linear_layer_says_so(network: nn.Module) -> None:
    with pytest.raises(ValueError, match="has no linear layer that makes its logits"):
        output_layer(network, torch.rand(1, 1, 2, 2))
