"""A network that is wanted: everything that decides its weights, and the other networks that it needs first."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trustml_cli.data.dataset import Dataset
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import digest
from trustml_cli.training.step import CROSS_ENTROPY, TrainingStep
from trustml_cli.training.trainer import Trainer
from trustml_cli.training.wrapper import Wrapper

COUNTED = ("static", "student", "part")
"""Purposes whose seeds are counted on from the run's, so that published figures stay what they are."""


def seed_for(seed: int, purpose: str, number: int) -> int:
    """The seed of the `number`-th (from 1) network or draw that serves `purpose` in a run with `seed`.

    It differs for each purpose and number, but for those in `COUNTED`: seed + number.
    """
    return seed + number if purpose in COUNTED else int(digest([seed, purpose, number])[:15], 16)


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """`model`, trained on `data` by `trainer`, which takes `step` for each batch, with random numbers from `seed`.

    `needs` are networks, by name, that are trained first and handed to the step (a teacher), before those that it asks
    for itself (static networks). `init_from` is a network of the same architecture whose weights training begins with.
    `model.checkpoint` is such a one in a file, or the network that is wanted where not `model.train`.
    """

    data: Dataset
    model: Model
    trainer: Trainer
    seed: int
    step: TrainingStep = CROSS_ENTROPY
    init_from: "TrainingSpec | None" = None
    needs: Mapping[str, "Spec"] = field(default_factory=dict)

    @property
    def networks(self) -> dict[str, "Spec"]:
        """Every network that the step is given, by name, in its order."""
        return {**self.needs, **self.step.needs(self)}

    @property
    def trains(self) -> bool:
        """Whether anything is trained; otherwise the network is read from its checkpoint."""
        return self.model.checkpoint is None or self.model.train

    @property
    def initialized(self) -> bool:
        """Whether training begins with the weights of a trained network."""
        return self.init_from is not None or (self.model.checkpoint is not None and self.model.train)

    @property
    def plain(self) -> bool:
        """Whether it is trained from random weights by the plain step, and needs no other network."""
        return self.trains and not self.initialized and not self.networks and self.step == CROSS_ENTROPY

    def seed_for(self, purpose: str, number: int) -> int:
        """The seed of a further network."""
        return seed_for(self.seed, purpose, number)

    def check(self) -> None:
        """Raise `InputError` for what cannot be trained."""
        if not self.trains:
            if self.init_from is not None or self.step != CROSS_ENTROPY:
                raise InputError("model.checkpoint: is not trained; go on from it with model.train=true")
            return
        if not self.trainer.takes_steps:
            if self.step != CROSS_ENTROPY:
                raise InputError("trainer: has no training steps that could be replaced; take trainer=default")
            if self.initialized:
                raise InputError("model.train: this trainer does not go on from given weights; take trainer=default")


@dataclass(frozen=True, kw_only=True)
class WrappedSpec:
    """`wrapper` around the network of `base`, trained on `data` with random numbers from `seed`."""

    base: "Spec"
    wrapper: Wrapper
    data: Dataset
    seed: int


Spec = TrainingSpec | WrappedSpec
