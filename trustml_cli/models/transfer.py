"""Transfer learning: the frozen body of a trained network with a new linear head."""

import copy
from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import nn

from trustml_cli.models.classifier import Classifier
from trustml_cli.models.features import output_layer
from trustml_cli.models.model import InputSpec, Model, Normalization
from trustml_cli.models.vision import Frozen
from trustml_cli.system.recipe import CHANGES_NOTHING


@dataclass(frozen=True, kw_only=True)
class NewHead(Model):
    """`donor`, frozen, with a new linear layer in place of its last one; only the new layer is trained.

    The donor is a network made by `Model.build`, including its normalisation; `donor_key` identifies its weights.
    """

    donor: nn.Module = field(metadata=CHANGES_NOTHING)  # `donor_key` determines it
    donor_key: str

    def network(self, inputs: InputSpec) -> nn.Sequential:
        body, features = body_of(self.donor, inputs.shape)
        return nn.Sequential(OrderedDict(body=Frozen(body), head=nn.Linear(features, inputs.classes)))


def new_head(donor: nn.Module, key: str) -> NewHead:
    """A new head on the trained network `donor`, whose key in the store (or of its checkpoint) is `key`."""
    return NewHead(
        normalization=Normalization.none,
        checkpoint=None,
        checkpoint_key=None,
        checkpoint_prefix=None,
        train=False,
        donor=donor,
        donor_key=key,
    )


def body_of(network: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """A copy of `network` without its output layer, and the number of features that it returns, for inputs of `shape`.

    Raises ValueError where no linear layer makes the logits, or no other layer has parameters.
    """
    body = copy.deepcopy(network).eval()
    device = next((weight.device for weight in body.parameters()), None)
    last = output_layer(body, torch.full((1, *shape), 0.5, device=device))
    path = next(path for path, layer in body.named_modules() if layer is last)
    if isinstance(body, Classifier):
        body.classes = last.in_features
    parent, _, attribute = path.rpartition(".")
    setattr(body.get_submodule(parent), attribute, nn.Identity())
    if not any(True for _ in body.parameters()):
        raise ValueError("has no layers below its last one that could be kept; use a deeper network")
    return body, last.in_features
