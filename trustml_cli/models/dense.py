"""Networks of linear layers, for images and tables."""

from dataclasses import dataclass
from math import prod

from torch import nn

from trustml_cli.models.model import InputSpec, Model
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Logistic(Model):
    """Multinomial logistic regression: one linear layer from the flattened input to the logits."""

    def network(self, inputs: InputSpec) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(inputs.shape), inputs.classes))


@dataclass(frozen=True, kw_only=True)
class Mlp(Model):
    """Fully connected layers of the widths in `hidden`, with ReLU and `dropout` after each."""

    hidden: list[int]
    dropout: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden: widths must be at least 1, got {self.hidden}")
        require(self, "dropout", at_least=0, below=1)

    def network(self, inputs: InputSpec) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Flatten()]
        width = prod(inputs.shape)
        for hidden in self.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), *([nn.Dropout(self.dropout)] if self.dropout else [])]
            width = hidden
        return nn.Sequential(*layers, nn.Linear(width, inputs.classes))
