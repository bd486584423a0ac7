"""What speaks against a robustness number, and the verdict that follows.

The checks are those that Athalye, Carlini and Wagner 2018 (arXiv 1802.00420) and Carlini et al. 2019 (arXiv
1902.06705) ask for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import comb
from typing import Any

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm, Sees
from trustml_cli.attacks.measure import Curve, attack_curve
from trustml_cli.attacks.stand_in import Asked
from trustml_cli.hardware import Halving

ZERO_GRADIENTS = 0.01  # the share of images from which on gradients are called masked
POINT = 0.01  # accuracies that differ by no more are called the same,
CHANCE = 0.05  # and so are those that differ by chance with this probability
SAME_LOGITS = 1e-3  # relative; a GPU may sum in another order

MASKING = "gradient masking"
RANDOMISED = "a model that answers differently each time"
WEAK = "too weak an attack"
NOT_NUMBERS = "a model that answers with NaN or infinity"
BROKEN = "an attack that does not work as it should"


@dataclass(frozen=True)
class Finding:
    """A check: whether it passed (None where it does not apply), with what figure, and what a failure speaks of."""

    name: str
    passed: bool | None
    figure: str
    speaks_of: str


def verdict(checked: Sequence[Finding], compared: Sequence[Finding]) -> str:
    """`trustworthy`, or what speaks against the number, each cause with the checks that say so.

    `compared` are the checks that hold the attack against others: where none of them applies, nothing speaks for the
    number either, and it is `not judged`.
    """
    failed = [finding for finding in (*checked, *compared) if finding.passed is False]
    causes = {cause: [one for one in failed if one.speaks_of == cause] for cause in (one.speaks_of for one in failed)}
    against = [
        f"{cause} (failed: {'; '.join(f'{one.name}: {one.figure}' for one in ones)})" for cause, ones in causes.items()
    ]
    if against:
        return f"not trustworthy: {', '.join(against)}"
    return "trustworthy" if any(finding.passed for finding in compared) else "not judged: held against no other attack"


def check_gradients(curve: Curve) -> Finding:
    """A gradient of zero hides the way from an attack that follows it, and its number looks too good."""
    name = "gradients are not zero"
    if curve.zero_gradient is None:
        return Finding(name, None, "not applicable: the attack takes none", MASKING)
    none = share(curve.zero_gradient)
    return Finding(name, none <= ZERO_GRADIENTS, f"{none:.2%} of images have none", MASKING)


def check_finite(curve: Curve) -> Finding:
    """An answer that is not a number is none: the attack has not fooled the model with it, nor has the model stood."""
    clean = int((curve.clean.predicted < 0).sum())
    attacked = max(int(one.unanswered.sum()) for one in curve.attacked)
    gradients = max(one.broken_gradients for one in curve.attacked)
    figure = (
        f"of {len(curve.labels)} images {clean} have no answer before the attack and up to {attacked} after it, "
        f"{gradients:.3g} gradients for each hold NaN or infinity"
    )
    return Finding("answers and gradients are numbers", not (clean or attacked or gradients), figure, NOT_NUMBERS)


def check_monotone(curve: Curve) -> Finding:
    """A larger budget contains the smaller one: accuracy that rises with it speaks against the attack."""
    accuracy = [(attacked.answers.predicted == curve.labels).double().mean().item() for attacked in curve.attacked]
    rises = [later - earlier for earlier, later in pairwise(accuracy)]
    largest = max(rises, default=0.0)
    passed = largest <= POINT if rises else None
    return Finding("accuracy does not rise with epsilon", passed, f"largest rise {max(largest, 0):.4f}", BROKEN)


@torch.no_grad()
def check_steady(model: nn.Module, x: Tensor) -> Finding:
    """A model in training mode, or one that draws random numbers, is another one at each question."""
    training = sum(layer.training for layer in model.modules())
    twice = Halving().over([(x, x)], lambda part, _: torch.stack([model(part), model(part)]))
    first, second = torch.cat(list(twice), 1)
    largest = (first - second).abs().amax().item()
    steady = largest <= SAME_LOGITS * max(1.0, first.abs().amax().item())
    figure = f"{training} layers in training mode, logits differ by up to {largest:.3g} when asked twice"
    return Finding("the model is in eval mode and deterministic", steady and not training, figure, RANDOMISED)


def telling_epsilon(curve: Curve) -> float | None:
    """The budget at which attacks differ most: accuracy is nearest to half of the clean one. None without any."""
    half = curve.initially_right.double().mean().item() / 2
    distance = {
        attacked.epsilon: abs((attacked.answers.predicted == curve.labels).double().mean().item() - half)
        for attacked in curve.attacked
        if attacked.epsilon > 0
    }
    return min(sorted(distance, reverse=True), key=lambda epsilon: distance[epsilon], default=None)


@dataclass(frozen=True)
class Rivals:
    """Attacks that another is held against, in its norm and with its target; None where one has no such norm."""

    one_step: Attack | None
    iterative: Attack | None
    black_box: Attack | None
    control: Attack | None

    @classmethod
    def of(cls, attack: Attack, rivals: Mapping[str, Attack]) -> "Rivals":
        """The rivals of `attack` among those given by role."""

        def like(rival: Attack | None) -> Attack | None:
            if rival is None or attack.norm not in rival.norms:
                return None
            return replace(rival, norm=attack.norm, target=None if rival.sees is Sees.nothing else attack.target)

        return cls(*(like(rivals.get(role)) for role in ("one_step", "iterative", "black_box", "control")))


@dataclass(frozen=True)
class Bench:
    """Images on which attacks are compared: batches of x and y, a budget, and the goal; and whom attacks ask."""

    model: nn.Module
    batches: Sequence[tuple[Tensor, Tensor]]
    epsilon: float
    target: int | str | None
    asked: Asked | None = None

    def stands(self, attack: Attack | None, epsilon: float | None = None) -> Tensor | None:
        """Whether each image does not reach the attack's goal, bool [N]; None where there is no attack."""
        if attack is None:
            return None
        budget = self.epsilon if epsilon is None else epsilon
        curve = attack_curve(self.model, attack, self.batches, [budget], keep=0, asked=self.asked)
        predicted = curve.attacked[0].answers.predicted
        return predicted == curve.labels if self.target is None else predicted != int(self.target)

    def compare(self, attack: Attack, given: Mapping[str, Attack]) -> list[Finding]:
        """Every check that needs other attacks, or this one with more effort or a larger budget."""
        rivals = Rivals.of(attack, given)
        stronger, white = with_more(attack), attack.sees is Sees.gradients
        itself, usual = self.stands(attack), self.stands(rivals.iterative)
        one_step = itself if white and stronger is None else self.stands(rivals.one_step)
        iterative = itself if white and stronger is not None else usual
        white_box = itself if white else usual
        black_box = itself if attack.sees is Sees.answers else self.stands(rivals.black_box)
        noise = None if attack.sees is Sees.nothing else self.stands(rivals.control)
        return [
            self.not_weaker("iterative steps are not weaker than one", iterative, one_step, MASKING),
            self.not_weaker("a white box is not weaker than a black box", white_box, black_box, MASKING),
            self.beats_noise(itself, noise),
            self.not_weaker("more steps or restarts change nothing", itself, self.stands(stronger), WEAK),
            self.not_weaker("a common iterative attack is not stronger", itself, usual, WEAK),
            self.unlimited(rivals.iterative if stronger is None else attack),
        ]

    def not_weaker(self, name: str, stands: Tensor | None, rival: Tensor | None, speaks_of: str) -> Finding:
        """A check that fails where clearly more images stand than under the rival.

        Clearly is by more than a point, and not by chance: a sign test over the images that only one of both fells.
        """
        passed = None
        if stands is not None and rival is not None:
            only_rival, only_this = int((stands & ~rival).sum()), int((rival & ~stands).sum())
            by_chance = sign_test(only_rival, only_this) >= CHANCE
            passed = only_rival - only_this <= POINT * len(stands) or by_chance
        return Finding(name, passed, self.figure(stands, rival), speaks_of)

    def beats_noise(self, stands: Tensor | None, noise: Tensor | None) -> Finding:
        """An attack that is no better than noise does nothing, unless noise is enough."""
        passed = None
        if stands is not None and noise is not None:
            passed = int(stands.sum()) < int(noise.sum()) or share(noise) <= POINT
        return Finding("the attack is stronger than random noise", passed, self.figure(stands, noise), BROKEN)

    def unlimited(self, attack: Attack | None) -> Finding:
        """With a budget that turns any image into any other, nothing can stand."""
        name, epsilon = "an unlimited budget leaves nothing standing", whole_range(attack, self.batches[0][0])
        stands = self.stands(attack, epsilon)
        if stands is None:
            return Finding(name, None, "no attack to try", MASKING)
        return Finding(name, share(stands) <= POINT, f"at epsilon {epsilon:.4g}, {share(stands):.3f} stand", MASKING)

    def figure(self, stands: Tensor | None, rival: Tensor | None) -> str:
        """'at epsilon 0.1, 0.240 of 200 stand against 0.310'."""
        if stands is None or rival is None:
            return "nothing to compare with"
        return f"at epsilon {self.epsilon:g}, {share(stands):.3f} of {len(stands)} stand against {share(rival):.3f}"


def share(flags: Tensor) -> float:
    """The share that is true."""
    return float(flags.double().mean())


def sign_test(more: int, less: int) -> float:
    """The chance of at least `more` heads in `more` + `less` tosses of a fair coin."""
    tosses = more + less
    heads = sum(comb(tosses, count) for count in range(more, tosses + 1))
    return float(Fraction(heads, 2**tosses))


def with_more(attack: Attack) -> Attack | None:
    """The same attack with twice the steps or queries and one more restart; None where it has nothing of the kind."""
    settings = vars(attack)
    more: dict[str, Any] = {name: 2 * settings[name] for name in ("steps", "queries") if name in settings}
    if "restarts" in settings and settings.get("random_start", True):
        more["restarts"] = settings["restarts"] + 1
    return replace(attack, **more) if more else None


def whole_range(attack: Attack | None, x: Tensor) -> float:
    """The budget with which any image can become any other."""
    values = float(x[0].numel())
    return {Norm.linf: 1.0, Norm.l2: values**0.5, Norm.l1: values, Norm.l0: values}[attack.norm] if attack else 0.0
