"""Specifications of networks: everything that determines the weights, and the networks to be trained first."""

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
"""Purposes whose seed is the run's seed + number, so that published figures remain reproducible."""


def seed_for(seed: int, purpose: str, number: int) -> int:
    """The seed of the `number`-th (from 1) network or random draw for `purpose` in a run with `seed`.

    It is a hash of all three, except for the purposes in `COUNTED`: seed + number.
    """
    return seed + number if purpose in COUNTED else int(digest([seed, purpose, number])[:15], 16)


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """`model`, trained on `data` by `trainer` with `step` on each batch and random numbers from `seed`.

    `needs` are networks, by name, that are trained first and passed to the step (a teacher), before those of
    `step.needs` (static networks). `init_from` is a network of the same architecture whose weights are the initial
    ones. `model.checkpoint` is a file of initial weights, or of the final weights unless `model.train`.
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
        """All networks that are passed to the step, by name, in order."""
        return {**self.needs, **self.step.needs(self)}

    @property
    def trains(self) -> bool:
        """Whether the network is trained; otherwise it has the weights of a checkpoint, or published ones."""
        return self.model.trains

    @property
    def initialized(self) -> bool:
        """Whether the initial weights are those of a trained network."""
        return self.init_from is not None or (self.model.checkpoint is not None and self.model.train)

    @property
    def plain(self) -> bool:
        """Whether it is trained from random weights by `CROSS_ENTROPY`, and needs no other network."""
        return self.trains and not self.initialized and not self.networks and self.step == CROSS_ENTROPY

    def seed_for(self, purpose: str, number: int) -> int:
        """The seed of a further network; see the function `seed_for`."""
        return seed_for(self.seed, purpose, number)

    def check(self) -> None:
        """Raise `InputError` for combinations that cannot be trained."""
        if not self.trains:
            if self.init_from is not None or self.step != CROSS_ENTROPY:
                raise InputError("model.checkpoint: is not trained; continue from it with model.train=true")
            return
        if not self.trainer.trains:
            raise InputError("trainer: none trains nothing, and this task trains a network; use trainer=default")
        if self.step != CROSS_ENTROPY and not self.trainer.takes_steps:
            raise InputError("trainer: has no training steps that could be replaced; use trainer=default")
        if self.initialized and not self.trainer.continues:
            raise InputError("model.train: this trainer does not continue from given weights; use trainer=default")


@dataclass(frozen=True, kw_only=True)
class WrappedSpec:
    """`wrapper` around the network of `base`, trained on `data` with random numbers from `seed`."""

    base: "Spec"
    wrapper: Wrapper
    data: Dataset
    seed: int


Spec = TrainingSpec | WrappedSpec
