"""A trained network's body under a new head, as whoever downloads a network and adapts it does."""

import copy
from collections import OrderedDict
from dataclasses import dataclass, field

from torch import nn

from trustml_cli.models.model import InputSpec, Model, Normalization
from trustml_cli.models.vision import Frozen
from trustml_cli.system.recipe import CHANGES_NOTHING


@dataclass(frozen=True, kw_only=True)
class NewHead(Model):
    """`donor`, frozen, with a fresh linear layer in place of its last one, which alone is trained.

    The donor is a network made by `Model.build`, its normalisation included; `donor_key` stands for its weights.
    """

    donor: nn.Module = field(metadata=CHANGES_NOTHING)  # that is not told by its key
    donor_key: str

    def network(self, inputs: InputSpec) -> nn.Sequential:
        body, features = body_of(self.donor)
        return nn.Sequential(OrderedDict(body=Frozen(body), head=nn.Linear(features, inputs.classes)))


def new_head(donor: nn.Module, key: str) -> NewHead:
    """A new head on the trained network `donor`, which the store or a checkpoint keeps under `key`."""
    return NewHead(normalization=Normalization.none, checkpoint=None, train=False, donor=donor, donor_key=key)


def body_of(network: nn.Module) -> tuple[nn.Module, int]:
    """A copy of `network` that returns what its last linear layer takes, and how many features that are.

    Raises ValueError where nothing but that layer is ever trained, or where there is none.
    """
    body = copy.deepcopy(network)
    linear = [(path, layer) for path, layer in body.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError("has no linear layer that a new head could replace; take another network")
    path, last = linear[-1]
    parent, _, attribute = path.rpartition(".")
    setattr(body.get_submodule(parent), attribute, nn.Identity())
    if not any(True for _ in body.parameters()):
        raise ValueError("has no layers below its last one that could be kept; take a deeper network")
    return body, last.in_features
