"""trainer=none: networks with published weights, or those of a checkpoint, are taken as they are."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from trustml_cli.models.model import Model
from trustml_cli.models.pretrained import Pretrained
from trustml_cli.system.errors import InputError
from trustml_cli.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class NoTrainer(Trainer):
    """Trains nothing: a network keeps its weights and its own head."""

    trains: ClassVar = False

    def check(self, model: Model) -> None:
        if model.trains and not (isinstance(model, Pretrained) and model.has_weights):
            raise ValueError(
                "none trains nothing, and this model has random weights; give model.checkpoint=FILE, or take a "
                "pretrained one: model=torchvision model.weights=imagenet, model=timm model.pretrained=true, or "
                "model=huggingface model.id=ID"
            )

    def fit(self, network: nn.Sequential, *_: object, **__: object) -> None:
        raise InputError("trainer: none trains nothing, and this task trains a network; use trainer=default")
