"""Comparison of an attack with reference attacks on the images that withstand it.

The reference attacks follow Carlini et al. 2019 (arXiv 1902.06705) and the four kinds of AutoAttack (Croce and Hein
2020, arXiv 2003.01690): a robust accuracy measured only by attacks on the cross-entropy may be far too high.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Access, Attack, Norm
from trustml_cli.attacks.attack_view import AttackView
from trustml_cli.attacks.checks import BROKEN, MASKING, WEAK, CheckResult, Comparison, share
from trustml_cli.attacks.measure import attack_curve
from trustml_cli.attacks.power import POINT, clearly, needed, smallest_gap
from trustml_cli.attacks.robustness_curve import Predictions
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.inference import logits_of

BENT = 1e-3  # linearity tolerance, relative to the spread of the logits


@dataclass(frozen=True)
class ReferenceAttacks:
    """Reference attacks for an attack, with its norm, target and constraints.

    None for a kind that does not support the norm, the target or the model.
    """

    one_step: Attack | None
    iterative: Attack | None
    targeted: Attack | None
    margin: Attack | None
    black_box: Attack | None
    control: Attack | None
    exact: Attack | None

    @classmethod
    def of(cls, attack: Attack, given: Mapping[str, Attack], model: nn.Module, x: Tensor) -> "ReferenceAttacks":
        """The reference attacks for `attack`, looked up in `given` by field name, for images like x [N, …]."""
        return cls(**{role.name: matched_to(attack, given.get(role.name), model, x) for role in fields(cls)})


def matched_to(attack: Attack, reference: Attack | None, model: nn.Module, x: Tensor) -> Attack | None:
    """`reference` with the norm, target and constraints of `attack`; None if it does not support them."""
    if reference is None or attack.norm not in reference.norms or attack.ball(x[:1], 1.0) is None:
        return None
    try:
        reference = replace(
            reference, norm=attack.norm, target=None if reference.access is Access.none else attack.target
        )
        if reference.optimal and not (is_unconstrained(attack) and is_linear(model, x)):
            return None
        reference.check(model, tuple(x.shape[1:]))
    except ValueError:
        return None
    return (
        reference
        if is_unconstrained(attack)
        else ConstrainedAttack(norm=reference.norm, target=reference.target, reference=reference, attack=attack)
    )


def is_unconstrained(attack: Attack) -> bool:
    """Whether the attack may use the whole ball of radius epsilon around x."""
    x = torch.zeros(1)
    ball = attack.ball(x, 1.0)
    return ball is not None and ball[0] is x and ball[1] == 1.0


@dataclass(frozen=True, kw_only=True)
class ConstrainedAttack(Attack):
    """A `reference` restricted to the ball of `attack`, which is smaller than the ball of radius epsilon around x."""

    norms: ClassVar = tuple(Norm)

    reference: Attack
    attack: Attack

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        centre, radius = self.attack.ball(x, epsilon) or (x, epsilon)
        return self.reference(Clipped(model), centre, y, radius).clamp(0, 1)


class Clipped(nn.Module):
    """A network that clips its input to [0, 1], because the centre of a ball may lie outside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.clamp(0, 1))
        return logits


@torch.no_grad()
def is_linear(model: nn.Module, x: Tensor) -> bool:
    """Whether the logits of the midpoint of two images are the mean of their logits, as for every affine function."""
    x, other = x[:16], x[:16].flip(0)
    ends, middle = (logits_of(model, x) + logits_of(model, other)) / 2, logits_of(model, (x + other) / 2)
    return bool((middle - ends).abs().max() <= BENT * (ends - ends.mean(0)).abs().max())


@dataclass
class AttackComparison:
    """Compares `attack` with reference attacks on batches of x and y; `stands` (bool [N]) marks what withstood it.

    An image that withstands the attack but not a reference attack shows that the robust accuracy is too high. So the
    reference attacks run only on the images that withstood the attack, which is cheapest and loses no evidence. The
    difference is clear if they succeed on at least 5 of these, and on more than 1 % of all N images (see
    `power.clearly`). For a check of gradient masking, the reference attack then also runs on the other images:
    gradients are masked if it is clearly stronger overall; if each succeeds on images that withstand the other, the
    attack is too weak.

    `upright` is the share of all images attacked at this epsilon that withstood it, an upper bound of the gap. `asked`
    is the network that the attacks query, and `clean` are the model's predictions for x, if they are known.
    """

    model: nn.Module
    batches: Sequence[tuple[Tensor, Tensor]]
    epsilon: float
    attack: Attack
    stands: Tensor
    upright: float = 1.0
    asked: AttackView | None = None
    clean: Predictions | None = None

    def compare(self, given: Mapping[str, Attack]) -> Comparison:
        """Run all checks that need other attacks, or this attack with more effort or a larger budget."""
        if self.attack.optimal:
            return Comparison(optimal=True)
        references = ReferenceAttacks.of(self.attack, given, self.model, self.batches[0][0])
        kinds = {"a targeted attack": references.targeted, "one on the margin": references.margin}
        kinds["one without gradients"] = self.attack if self.attack.access is Access.query else references.black_box
        untried = [name for name, reference in kinds.items() if reference is None]
        return Comparison(
            self.findings(references), len(self.stands), self.shows, untried, references.exact is not None
        )

    @property
    def shows(self) -> float:
        """The smallest detectable gap, as a share of the images."""
        return min(smallest_gap(len(self.stands)), self.upright)

    def findings(self, references: ReferenceAttacks) -> list[CheckResult]:
        """Run the checks and return their results in order."""
        stronger = with_more_effort(self.attack)
        tireless = references.iterative if stronger is None else stronger
        at_epsilon, without_limit = None, None
        if tireless is not None:
            most = whole_range(tireless, self.batches[0][0])
            at_epsilon, without_limit = self.shown(tireless, self.stands, self.epsilon, most)
        usual = at_epsilon if tireless is references.iterative else self.left(references.iterative)
        boxed = self.left(references.black_box)
        return [
            *self.masking(references, usual, boxed, one_step=stronger is None),
            self.beats_noise(references.control),
            self.not_beaten("more steps change nothing", None if stronger is None else at_epsilon),
            self.not_beaten("a common iterative attack is not stronger", usual),
            self.not_beaten("a targeted attack is not stronger", self.left(references.targeted)),
            self.not_beaten("an attack on the margin is not stronger", self.left(references.margin)),
            self.not_beaten("the optimum of a linear model is not stronger", self.left(references.exact)),
            self.unlimited(without_limit if is_unconstrained(self.attack) else None),
        ]

    def masking(
        self, references: ReferenceAttacks, usual: Tensor | None, boxed: Tensor | None, one_step: bool
    ) -> list[CheckResult]:
        """Checks for masked gradients; `usual` and `boxed` [N] mark what withstood many steps or a black box."""
        steps, boxes = "iterative steps are not weaker than one", "a white box is not weaker than a black box"
        if self.attack.access is Access.white_box:
            first = (
                self.not_weaker(steps, usual, references.iterative)
                if one_step
                else self.not_masked(steps, self.left(references.one_step), references.one_step)
            )
            return [first, self.not_masked(boxes, boxed, references.black_box)]
        more = self.not_beaten("an attack without gradients is not stronger", boxed)
        return (
            [self.not_weaker(boxes, usual, references.iterative), more]
            if self.attack.access is Access.query
            else [more]
        )

    def shown(self, reference: Attack, images: Tensor, *epsilons: float) -> list[Tensor]:
        """For each epsilon, which of `images` (bool [N]) withstand the reference; False for all other images."""
        stands = [torch.zeros_like(images) for _ in epsilons]
        size, start = len(self.batches[0][0]), 0
        chosen: list[tuple[Tensor, Tensor]] = []
        for x, y in self.batches:
            here = images[start : start + len(x)].to(x.device)
            chosen.append((x[here], y[here]))
            start += len(x)
        x, y = (torch.cat(parts) for parts in zip(*chosen, strict=True))
        if len(x):
            batches = zip(torch.split(x, size), torch.split(y, size), strict=True)
            clean = self.clean[images] if self.clean else None
            curve = attack_curve(self.model, reference, batches, epsilons, keep=0, asked=self.asked, clean=clean)
            for mask, attacked in zip(stands, curve.attacked, strict=True):
                mask[images] = survived(self.attack, attacked.answers.predicted, curve.labels)
        return stands

    def left(self, reference: Attack | None) -> Tensor | None:
        """Which images withstand both the attack and the reference, bool [N]; None if there is no reference."""
        return None if reference is None else self.shown(reference, self.stands, self.epsilon)[0]

    def not_beaten(self, name: str, left: Tensor | None, speaks_of: str = WEAK) -> CheckResult:
        """A check that fails if another attack succeeds on clearly many images that withstand this one."""
        if left is None:
            return CheckResult(name, None, "nothing to compare with", speaks_of)
        count, upright = len(left), int(self.stands.sum())
        fell = upright - int(left.sum())
        passed = not clearly(fell, 0, count)
        figure = (
            f"{fell} of the {upright} images that survive are misclassified under it "
            f"(n = {count}, epsilon {self.epsilon:g})"
        )
        return CheckResult(name, passed, f"{figure}; {self.sight}" if passed else figure, speaks_of)

    @property
    def sight(self) -> str:
        """The smallest detectable gap, in words."""
        return f"a gap of {100 * self.shows:.1f} points would have shown" if self.shows <= 1 else "too few to show any"

    def not_masked(self, name: str, left: Tensor | None, reference: Attack | None) -> CheckResult:
        """`not_beaten` for a weaker kind of attack; a failure means masking if that attack is stronger overall."""
        finding = self.not_beaten(name, left, MASKING)
        if left is None or reference is None or finding.passed:
            return finding
        only_reference = int((self.stands & ~left).sum())
        only_attack = int(self.shown(reference, ~self.stands, self.epsilon)[0].sum())
        return finding if clearly(only_reference, only_attack, len(left)) else replace(finding, speaks_of=WEAK)

    def not_weaker(self, name: str, left: Tensor | None, reference: Attack | None) -> CheckResult:
        """A check that fails if the attack is clearly stronger than a reference that should be at least as strong."""
        if left is None or reference is None:
            return CheckResult(name, None, "nothing to compare with", MASKING)
        only_attack = int(self.shown(reference, ~self.stands, self.epsilon)[0].sum())
        only_reference = int((self.stands & ~left).sum())
        each = f"{only_reference} of {len(left)} fall to many steps alone, {only_attack} to the attack alone"
        passed = not clearly(only_attack, only_reference, len(left))
        return CheckResult(name, passed, f"{each} (epsilon {self.epsilon:g})", MASKING)

    def beats_noise(self, noise: Attack | None) -> CheckResult:
        """Check that the attack is clearly stronger than random noise.

        Undecided (None) if noise succeeds on almost all images, or if too few images withstand only one of the two.
        """
        name = "the attack is stronger than random noise"
        if noise is None or self.attack.access is Access.none:
            return CheckResult(name, None, "nothing to compare with", BROKEN)
        (stands,) = self.shown(noise, torch.ones_like(self.stands), self.epsilon)
        only_attack, only_noise = int((stands & ~self.stands).sum()), int((self.stands & ~stands).sum())
        passed: bool | None = clearly(only_attack, only_noise, len(stands))
        if not passed and (share(stands) <= POINT or only_attack + only_noise < needed(len(stands))):
            passed = None
        left = (
            f"{in_percent(share(self.stands))} of {len(stands)} images survive, {in_percent(share(stands))} under noise"
        )
        return CheckResult(name, passed, f"at epsilon {self.epsilon:g}, {left}", BROKEN)

    def unlimited(self, stands: Tensor | None) -> CheckResult:
        """Check that no image withstands a budget that can turn any image into any other."""
        name = "an unlimited budget leaves nothing standing"
        if stands is None:
            return CheckResult(name, None, "nothing to compare with", MASKING)
        epsilon = whole_range(self.attack, self.batches[0][0])
        figure = f"at epsilon {epsilon:.4g}, {in_percent(share(stands))} of {len(stands)} images survive"
        return CheckResult(name, share(stands) <= POINT, figure, MASKING)


def survived(attack: Attack, predicted: Tensor, labels: Tensor) -> Tensor:
    """Whether images with predictions `predicted` [N] have not reached the attack's goal, bool [N]."""
    return predicted == labels if attack.target is None else predicted != int(attack.target)


def with_more_effort(attack: Attack) -> Attack | None:
    """The attack with twice the steps or queries; None if it has neither.

    It runs on images that withstood all restarts of the attack, so one restart is enough.
    """
    settings = vars(attack)
    more: dict[str, Any] = {name: 2 * settings[name] for name in ("steps", "queries") if name in settings}
    if more and "restarts" in settings:
        more["restarts"] = 1
    return replace(attack, **more) if more else None


def whole_range(attack: Attack, x: Tensor) -> float:
    """The budget with which any image can become any other."""
    values = float(x[0].numel())
    sizes: dict[Norm, float] = {Norm.linf: 1.0, Norm.l2: values**0.5, Norm.l1: values, Norm.l0: values}
    return sizes[attack.norm]
