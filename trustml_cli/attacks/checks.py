"""Sanity checks of a measured robust accuracy, and the verdict that follows from them.

The checks are those recommended by Athalye, Carlini and Wagner 2018 (arXiv 1802.00420) and Carlini et al. 2019 (arXiv
1902.06705).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack_view import same_logits
from trustml_cli.attacks.power import GAP, POINT, images_for
from trustml_cli.attacks.robustness_curve import RobustnessCurve
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.inference import logits_of
from trustml_cli.system.hardware import BatchSplitter

ZERO_GRADIENTS = 0.01  # gradients count as masked above this share of images with zero gradient

MASKING = "gradient masking"
RANDOMISED = "a model that answers differently each time"
WEAK = "too weak an attack"
NOT_NUMBERS = "a model that answers with NaN or infinity"
BROKEN = "an attack that does not work as it should"


@dataclass(frozen=True)
class CheckResult:
    """A check: whether it passed (None if not applicable), the measured figure, and the cause a failure points to."""

    name: str
    passed: bool | None
    figure: str
    speaks_of: str


@dataclass(frozen=True)
class Comparison:
    """The result of comparing an attack with reference attacks on `images` images.

    `shows` is the smallest detectable gap, as a share of all images. `untried` lists the kinds of attack that should
    have been tried but could not. `optimal` is True if no stronger attack exists within the budget: either this is
    proven for the attack, or a provably optimal attack was part of the comparison.
    """

    findings: Sequence[CheckResult] = ()
    images: int = 0
    shows: float = 0.0
    untried: Sequence[str] = ()
    optimal: bool = False


def verdict(checked: Sequence[CheckResult], compared: Comparison) -> str:
    """`trustworthy`, or the causes for doubt, each with the checks that failed.

    `trustworthy` requires that a targeted attack, one on the margin and one without gradients are not stronger, or
    that the attack is optimal. If one of them could not be tried: `no check speaks against it`, with what is missing.
    If there was no comparison, or too few images to detect a gap of 3 points: `not judged`.
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
        return "not judged: compared with no other attack"
    if compared.shows > GAP:
        seen = f"only gaps of {100 * compared.shows:.1f} points or more" if compared.shows <= 1 else "no gap"
        enough = f"{images_for(GAP)} would show one of {100 * GAP:g} points"
        return f"not judged: {compared.images} images would show {seen}; {enough}"
    if compared.untried and not compared.optimal:
        return f"no check speaks against it; not tried: {', '.join(compared.untried)}"
    return "trustworthy"


def check_gradients(curve: RobustnessCurve) -> CheckResult:
    """Check for zero input gradients: they stop gradient-based attacks and make robust accuracy look too high."""
    name = "gradients are not zero"
    if curve.zero_gradient is None:
        return CheckResult(name, None, "not applicable: none was taken", MASKING)
    none = share(curve.zero_gradient)
    return CheckResult(name, none <= ZERO_GRADIENTS, f"{in_percent(none)} of images have none", MASKING)


def check_finite(curve: RobustnessCurve) -> CheckResult:
    """Check that logits and gradients are finite: NaN or infinite logits are neither a success nor a failure."""
    clean = int((curve.clean.predicted < 0).sum())
    attacked = max(int(one.unanswered.sum()) for one in curve.attacked)
    gradients = max(one.broken_gradients for one in curve.attacked)
    figure = (
        f"of {len(curve.labels)} images {clean} have no answer before the attack and up to {attacked} after it, "
        f"{gradients:.3g} gradients for each hold NaN or infinity"
    )
    return CheckResult("answers and gradients are numbers", not (clean or attacked or gradients), figure, NOT_NUMBERS)


def check_monotone(curve: RobustnessCurve) -> CheckResult:
    """Check that accuracy does not rise with epsilon: a larger budget contains every smaller one."""
    accuracy = [(attacked.answers.predicted == curve.labels).double().mean().item() for attacked in curve.attacked]
    rises = [later - earlier for earlier, later in pairwise(accuracy)]
    largest = max(rises, default=0.0)
    passed = largest <= POINT if rises else None
    return CheckResult(
        "accuracy does not rise with epsilon", passed, f"largest rise {100 * max(largest, 0):.1f} points", BROKEN
    )


@torch.no_grad()
def check_steady(model: nn.Module, x: Tensor) -> CheckResult:
    """Check that the model is in eval mode and gives the same logits for the same images twice."""
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
    """The epsilon above 0 at which accuracy is nearest to half of the clean accuracy; None if there is none.

    Attacks differ most there.
    """
    half = curve.initially_right.double().mean().item() / 2
    distance = {
        attacked.epsilon: abs((attacked.answers.predicted == curve.labels).double().mean().item() - half)
        for attacked in curve.attacked
        if attacked.epsilon > 0
    }
    return min(sorted(distance, reverse=True), key=lambda epsilon: distance[epsilon], default=None)


def share(flags: Tensor) -> float:
    """The share of true values."""
    return float(flags.double().mean())
