"""A network's logits for clean test images, and for some of them under attack and shifted: for tasks on confidence."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from trustml_cli.attacks.attack import Attack
from trustml_cli.corruptions.shift import Fill, shifted
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, random_subset
from trustml_cli.defences.defence import Defence
from trustml_cli.models.inference import logits_of
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import BatchSplitter, seeded
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context, input_spec
from trustml_cli.tasks.robustness import check_gradient_access
from trustml_cli.training.predict import BATCH, Answers, predict

CLEAN = "none"


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

    @property
    def title(self) -> str:
        """The perturbation in words."""
        if self.perturbation == CLEAN:
            return "clean images"
        unit = "shifted by {:g} pixels" if self.perturbation == "shift" else f"under {self.perturbation} at {{:g}}"
        return f"images {unit.format(self.strength)}"


@dataclass(frozen=True, kw_only=True)
class UnderPerturbation:
    """Tasks that ask a network for clean test images, and for `images` of them (None: all) under perturbations.

    They are attacked at each `epsilon` (pixel units), and shifted to the right by each number of pixels in `shift`.
    """

    images: int | None
    epsilon: list[float]
    shift: list[int]
    fill: Fill

    def __post_init__(self) -> None:
        require(self, "images", at_least=1)
        for name, values in (("epsilon", self.epsilon), ("shift", self.shift)):
            if any(not 0 < value < torch.inf for value in values):
                raise ValueError(f"{name}: must be numbers above 0, or none of them ([]), got {values}")

    def check_perturbations(
        self, context: Context, data: Dataset, model: Model, attack: Attack, defence: Defence
    ) -> None:
        """Raise `InputError` where these images or this network cannot be perturbed so."""
        if self.shift and len(data.shape) != 3:
            raise InputError("task.shift: only images can be shifted; take task.shift=[]")
        if self.shift and max(self.shift) >= data.shape[2]:
            raise InputError(f"task.shift: the images are {data.shape[2]} pixels wide, got {max(self.shift)}")
        if not self.epsilon:
            return
        if attack.target is not None or attack.learns_from:
            raise InputError("attack: takes no target here, and no training images; take pgd, or task.epsilon=[]")
        with prefix_errors("model"), seeded(context.seed):
            fresh = defence.around(model.build(input_spec(data)), data.shape)
        with prefix_errors("attack"):
            attack.check(fresh, data.shape)
            check_gradient_access(attack, fresh, data.shape)

    def answers(
        self, context: Context, network: nn.Module, data: Dataset, attack: Attack
    ) -> Iterator[PerturbedAnswers]:
        """The answers for all clean test images, then for some of them under each perturbation."""
        yield PerturbedAnswers(CLEAN, 0.0, predict(network, data.test, context.hardware))
        some = data.test if self.images is None else random_subset(data.test, self.images, context.seed)
        device = context.hardware.device

        def under(name: str, strength: float, x: Tensor, y: Tensor) -> Tensor:
            if name == "shift":
                return shifted(x, 0, int(strength), self.fill)
            return attack(network, x, y, strength)

        asked = [(context.record.choices["attack"], epsilon) for epsilon in sorted({*self.epsilon})]
        asked += [("shift", pixels) for pixels in sorted({*self.shift})]
        for name, strength in tqdm(asked, desc="perturbing", unit="condition", disable=None):

            def ask(x: Tensor, y: Tensor, name: str = name, strength: float = strength) -> tuple[Tensor, Tensor]:
                perturbed = under(name, strength, x, y)
                with torch.no_grad():
                    return logits_of(network, perturbed), y

            with seeded(context.seed):
                parts = list(BatchSplitter().over(batches(some, BATCH, device), ask))
            logits, labels = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
            yield PerturbedAnswers(name, strength, Answers(logits, labels))
