"""What speaks against a robustness number, and the verdict that follows.

The checks are those that Athalye, Carlini and Wagner 2018 (arXiv 1802.00420) and Carlini et al. 2019 (arXiv
1902.06705) ask for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack_view import same_logits
from trustml_cli.attacks.measure import RobustnessCurve
from trustml_cli.attacks.power import GAP, POINT, images_for
from trustml_cli.models.inference import logits_of
from trustml_cli.system.hardware import BatchSplitter

ZERO_GRADIENTS = 0.01  # the share of images from which on gradients are called masked

MASKING = "gradient masking"
RANDOMISED = "a model that answers differently each time"
WEAK = "too weak an attack"
NOT_NUMBERS = "a model that answers with NaN or infinity"
BROKEN = "an attack that does not work as it should"


@dataclass(frozen=True)
class CheckResult:
    """A check: whether it passed (None where it does not apply), with what figure, and what a failure speaks of."""

    name: str
    passed: bool | None
    figure: str
    speaks_of: str


@dataclass(frozen=True)
class Comparison:
    """What came of holding an attack against others on so many `images`.

    `shows` is the smallest gap that they would have shown, a share of all images. `untried` are the kinds of attack
    that should have been tried and could not. `optimal` says that nothing stronger than the attack exists within its
    budget, because that is proven of it or because an attack of which it is proven is not stronger.
    """

    findings: Sequence[CheckResult] = ()
    images: int = 0
    shows: float = 0.0
    untried: Sequence[str] = ()
    optimal: bool = False


def verdict(checked: Sequence[CheckResult], compared: Comparison) -> str:
    """`trustworthy`, or what speaks against the number, each cause with the checks that say so.

    `trustworthy` is said only where a targeted attack, one on the margin and one without gradients are not stronger,
    or nothing can be. Where one of them could not be tried, `no check speaks against it`, with what is missing. Where
    the attack was held against none, or on too few images to see a gap of 3 points, the number is `not judged`.
    """
    failed = [finding for finding in (*checked, *compared.findings) if finding.passed is False]
    causes = {cause: [one for one in failed if one.speaks_of == cause] for cause in (one.speaks_of for one in failed)}
    against = [
        f"{cause} (failed: {'; '.join(f'{one.name}: {one.figure}' for one in ones)})" for cause, ones in causes.items()
    ]
    if against:
        return f"not trustworthy: {', '.join(against)}"
    if compared.optimal and not compared.images:
        return "trustworthy"
    if not any(finding.passed for finding in compared.findings):
        return "not judged: held against no other attack"
    if compared.shows > GAP:
        seen = f"a gap from {100 * compared.shows:.1f} points on" if compared.shows <= 1 else "none"
        return f"not judged: {compared.images} images show {seen}; one of {100 * GAP:g} points takes {images_for(GAP)}"
    if compared.untried and not compared.optimal:
        return f"no check speaks against it; not tried: {', '.join(compared.untried)}"
    return "trustworthy"


def check_gradients(curve: RobustnessCurve) -> CheckResult:
    """A gradient of zero hides the way from an attack that follows it, and its number looks too good."""
    name = "gradients are not zero"
    if curve.zero_gradient is None:
        return CheckResult(name, None, "not applicable: none was taken", MASKING)
    none = share(curve.zero_gradient)
    return CheckResult(name, none <= ZERO_GRADIENTS, f"{none:.2%} of images have none", MASKING)


def check_finite(curve: RobustnessCurve) -> CheckResult:
    """An answer that is not a number is none: the attack has not fooled the model with it, nor has the model stood."""
    clean = int((curve.clean.predicted < 0).sum())
    attacked = max(int(one.unanswered.sum()) for one in curve.attacked)
    gradients = max(one.broken_gradients for one in curve.attacked)
    figure = (
        f"of {len(curve.labels)} images {clean} have no answer before the attack and up to {attacked} after it, "
        f"{gradients:.3g} gradients for each hold NaN or infinity"
    )
    return CheckResult("answers and gradients are numbers", not (clean or attacked or gradients), figure, NOT_NUMBERS)


def check_monotone(curve: RobustnessCurve) -> CheckResult:
    """A larger budget contains the smaller one: accuracy that rises with it speaks against the attack."""
    accuracy = [(attacked.answers.predicted == curve.labels).double().mean().item() for attacked in curve.attacked]
    rises = [later - earlier for earlier, later in pairwise(accuracy)]
    largest = max(rises, default=0.0)
    passed = largest <= POINT if rises else None
    return CheckResult("accuracy does not rise with epsilon", passed, f"largest rise {max(largest, 0):.4f}", BROKEN)


@torch.no_grad()
def check_steady(model: nn.Module, x: Tensor) -> CheckResult:
    """A model in training mode, or one that draws random numbers, is another one at each question."""
    training = sum(layer.training for layer in model.modules())
    twice = BatchSplitter().over(
        [(x, x)], lambda part, _: torch.stack([logits_of(model, part), logits_of(model, part)])
    )
    first, second = torch.cat(list(twice), 1)
    largest = (first - second).nan_to_num(0.0).abs().amax().item()
    steady = same_logits(first, second)
    figure = f"{training} layers in training mode, logits differ by up to {largest:.3g} when asked twice"
    return CheckResult("the model is in eval mode and deterministic", steady and not training, figure, RANDOMISED)


def telling_epsilon(curve: RobustnessCurve) -> float | None:
    """The budget at which attacks differ most: accuracy is nearest to half of the clean one. None without any."""
    half = curve.initially_right.double().mean().item() / 2
    distance = {
        attacked.epsilon: abs((attacked.answers.predicted == curve.labels).double().mean().item() - half)
        for attacked in curve.attacked
        if attacked.epsilon > 0
    }
    return min(sorted(distance, reverse=True), key=lambda epsilon: distance[epsilon], default=None)


def share(flags: Tensor) -> float:
    """The share that is true."""
    return float(flags.double().mean())
