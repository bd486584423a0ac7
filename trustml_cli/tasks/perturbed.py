"""A network's logits for clean test images, and for images under attack, shifted or corrupted."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack
from trustml_cli.config.instantiate import chosen
from trustml_cli.corruptions.corruption import Corruption, check_severity
from trustml_cli.corruptions.shift import Fill, shifted
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, random_subset
from trustml_cli.defences.defence import Defence
from trustml_cli.models.inference import logits_of
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import BatchSplitter, seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.robustness import check_gradient_access
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH, Answers, predict

CLEAN, SHIFT = "none", "shift"

Perturbation = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""A change of images, from the network, images x and classes y."""


@dataclass(frozen=True)
class PerturbedAnswers:
    """The answers for images under one perturbation, CLEAN at strength 0."""

    perturbation: str
    strength: float
    answers: Answers

    @property
    def condition(self) -> dict[str, object]:
        """The columns that name it."""
        return {"perturbation": self.perturbation, "strength": self.strength}


@dataclass(frozen=True, kw_only=True)
class UnderPerturbation:
    """Tasks that ask a network for clean test images, and for `images` of them (None: all) under perturbations.

    They are attacked at each `epsilon` (pixel units), shifted to the right by each number of pixels in `shift`, and
    corrupted by each `corruption` in each strength of `severity`, from 1.
    """

    images: int | None
    epsilon: list[float]
    shift: list[int]
    fill: Fill
    corruption: list[str]
    severity: list[int]

    def __post_init__(self) -> None:
        require(self, "images", at_least=1)
        for name in ("epsilon", "shift", "severity"):
            values = getattr(self, name)
            if any(not 0 < value < torch.inf for value in values):
                raise ValueError(f"{name}: must be numbers above 0, or none of them ([]), got {values}")

    def perturbations(
        self,
        context: Context,
        data: Dataset,
        model: Model,
        attack: Attack,
        corruptions: Mapping[str, Corruption],
        defence: Defence,
    ) -> dict[tuple[str, float], Perturbation]:
        """The change for each kind and strength; raises `InputError` where images or network do not suit it."""
        found: dict[tuple[str, float], Perturbation] = {}
        if (self.epsilon or self.shift or self.corruption) and len(data.shape) != 3:
            raise InputError(
                "task.epsilon, task.shift, task.corruption: need images; use task.epsilon=[] task.shift=[] "
                "task.corruption=[]"
            )
        if self.epsilon:
            self.check_attack(context, data, model, attack, defence)
        for epsilon in sorted({*self.epsilon}):
            found[context.record.choices["attack"], epsilon] = partial(attacked, attack, epsilon)
        if self.shift and max(self.shift) >= data.shape[2]:
            raise InputError(f"task.shift: the images are {data.shape[2]} pixels wide, got {max(self.shift)}")
        for pixels in sorted({*self.shift}):
            found[SHIFT, float(pixels)] = partial(moved, pixels, self.fill)
        asked = chosen(self.corruption, corruptions, "task.corruption") if self.corruption else {}
        with prefix_errors("task"):
            check_severity(asked, self.severity)
        strengths = sorted({*self.severity})
        found |= {(name, float(at)): partial(corrupted, one, at) for name, one in asked.items() for at in strengths}
        return found

    def check_attack(self, context: Context, data: Dataset, model: Model, attack: Attack, defence: Defence) -> None:
        """Raise `InputError` where these images or this network cannot be attacked so."""
        if attack.target is not None or attack.learns_from:
            raise InputError("attack: takes no target here, and no training images; use pgd, or task.epsilon=[]")
        with prefix_errors("model"), seeded(context.seed):
            fresh = defence.around(model.build(input_spec(data)), data.shape)
        with prefix_errors("attack"):
            attack.check(fresh, data.shape)
            check_gradient_access(attack, fresh, data.shape)

    def answers(
        self,
        context: Context,
        network: nn.Module,
        data: Dataset,
        perturbations: Mapping[tuple[str, float], Perturbation],
    ) -> Iterator[PerturbedAnswers]:
        """The answers for all clean test images, then for some of them under each perturbation."""
        yield PerturbedAnswers(CLEAN, 0.0, predict(network, data.test, context.hardware))
        some = data.test if self.images is None else random_subset(data.test, self.images, context.seed)
        for (name, strength), change in Progress(perturbations.items(), desc="perturbing", unit="condition"):

            def ask(x: Tensor, y: Tensor, change: Perturbation = change) -> tuple[Tensor, Tensor]:
                perturbed = change(network, x, y)
                with torch.no_grad():
                    return logits_of(network, perturbed), y

            with seeded(context.seed):
                parts = list(BatchSplitter().over(batches(some, BATCH, context.hardware.device), ask))
            logits, labels = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
            yield PerturbedAnswers(name, strength, Answers(logits, labels))


def attacked(attack: Attack, epsilon: float, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Images x of classes y under an attack on the network."""
    return attack(network, x, y, epsilon)


def moved(pixels: int, fill: Fill, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Images x, shifted to the right."""
    return shifted(x, 0, pixels, fill)


def corrupted(corruption: Corruption, severity: int, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Images x under a corruption."""
    return corruption(x, severity)
