"""What an attack does to a model, image by image, and what must hold for the numbers to be believed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm, input_gradient

TOLERANCE = 1e-6  # float32 rounds x + ε·d: a perturbation may be over its budget by as much
ROUNDING = 2**-24  # and each of its values by as much


@dataclass
class Attacked:
    """The images of one epsilon after the attack: answers and sizes of the perturbation, each of shape [N]."""

    epsilon: float
    predicted: Tensor
    confidence: Tensor
    sizes: dict[Norm, Tensor]
    seconds: float
    examples: Tensor
    """The first few adversarial images themselves, [n, C, H, W]."""


@dataclass
class Curve:
    """A model under an attack at several epsilons; the tensors of the images before it have shape [N]."""

    labels: Tensor
    clean_predicted: Tensor
    clean_confidence: Tensor
    zero_gradient: Tensor
    """Whether the loss does not depend on the image at all."""
    examples: Tensor
    """The first few images before the attack, [n, C, H, W]."""
    attacked: list[Attacked] = field(default_factory=list)

    @property
    def initially_right(self) -> Tensor:
        """Whether the model is right before the attack, bool [N]."""
        return self.clean_predicted == self.labels


def attack_curve(
    model: nn.Module,
    attack: Attack,
    batches: Iterable[tuple[Tensor, Tensor]],
    epsilons: Sequence[float],
    keep: int,
) -> Curve:
    """Attack every batch at every epsilon; `keep` images are kept as examples. All results are on the CPU.

    `seconds` is the time to make and to score the images of an epsilon. Work that the attack shares between epsilons
    is counted with the first.
    """
    clean: list[tuple[Tensor, ...]] = []
    answers: list[list[tuple[Tensor, ...]]] = [[] for _ in epsilons]
    changes: list[list[dict[Norm, Tensor]]] = [[] for _ in epsilons]
    examples: list[list[Tensor]] = [[] for _ in range(len(epsilons) + 1)]
    seconds = [0.0] * len(epsilons)
    kept = 0
    for x, y in batches:
        keep_here = min(keep - kept, len(x))
        zero = input_gradient(model, x, y).flatten(1).abs().amax(1) == 0
        clean.append((y.cpu(), *answer(model, x), zero.cpu()))
        examples[0].append(x[:keep_here].cpu())
        start = perf_counter()
        for number, x_adv in enumerate(attack.curve(model, x, y, epsilons)):
            assert x_adv.shape == x.shape
            answers[number].append(answer(model, x_adv))
            changes[number].append(sizes(x_adv - x))
            seconds[number] += perf_counter() - start
            examples[number + 1].append(x_adv[:keep_here].detach().cpu())
            start = perf_counter()
        kept += keep_here
    labels, answered, sure, zero = map(torch.cat, zip(*clean, strict=True))
    curve = Curve(labels, answered, sure, zero, torch.cat(examples[0]))
    for number, epsilon in enumerate(epsilons):
        predicted, confidence = map(torch.cat, zip(*answers[number], strict=True))
        size = {norm: torch.cat([change[norm] for change in changes[number]]) for norm in Norm}
        shown = torch.cat(examples[number + 1])
        curve.attacked.append(Attacked(epsilon, predicted, confidence, size, seconds[number], shown))
    return curve


@torch.no_grad()
def answer(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted classes and their softmax probabilities, both [N], on the CPU."""
    confidence, predicted = model(x).softmax(1).max(1)
    return predicted.cpu(), confidence.cpu()


def sizes(perturbation: Tensor) -> dict[Norm, Tensor]:
    """The size of each image's perturbation [N, …] in every norm, each [N] and on the CPU."""
    flat = perturbation.detach().flatten(1)
    size = flat.abs()
    return {
        Norm.linf: size.amax(1).cpu(),
        Norm.l2: flat.norm(dim=1).cpu(),
        Norm.l1: size.sum(1).cpu(),
        Norm.l0: (flat != 0).sum(1).float().cpu(),
    }


def within_budget(x_adv: Tensor, x: Tensor, epsilon: float, norm: Norm) -> bool:
    """Whether every image is in [0, 1] and within `epsilon` of its original, but for what float32 rounds."""
    values = x[0].numel()
    rounding = {Norm.linf: 1, Norm.l2: values**0.5, Norm.l1: values, Norm.l0: 0}[norm] * ROUNDING
    in_range = bool((x_adv >= 0).all() and (x_adv <= 1).all())
    return in_range and bool((sizes(x_adv - x)[norm] <= epsilon + TOLERANCE * max(1.0, epsilon) + rounding).all())
