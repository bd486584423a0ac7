"""task=defensive_distillation: what is left of it under attacks that zero gradients do not stop.

Papernot et al. 2016, arXiv 1511.04508; Carlini and Wagner 2016, arXiv 1607.04311.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack
from trustml_cli.attacks.checks import WEAK, CheckResult, Comparison, check_finite, check_gradients, share, verdict
from trustml_cli.attacks.measure import attack_curve
from trustml_cli.attacks.power import clearly, smallest_gap
from trustml_cli.attacks.robustness_curve import RobustnessCurve
from trustml_cli.attacks.standard import Standard
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, Split, random_subset
from trustml_cli.defences.distillation import DefensiveDistillation
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import proportion
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.plots.distillation import accuracy_over_temperature
from trustml_cli.plots.robustness import NORM_SYMBOLS
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.robustness import check_epsilons, check_gradient_access, check_pixels, fit_attack
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH
from trustml_cli.training.trainer import Trainer

CARRIED = "carried_over"


@dataclass(frozen=True)
class Outcome:
    """Whether each image is classified correctly under an attack, bool [N], and the checks of the attack itself.

    `zero_gradient` (bool [N]) is None for an attack that takes no gradient of the attacked network.
    """

    right: Tensor
    zero_gradient: Tensor | None
    findings: list[CheckResult]
    seconds: float

    def compared(self, others: Mapping[str, "Outcome"], tried_standard: bool) -> Comparison:
        """The comparison with the strongest of the other attacks on the same images."""
        name, strongest = min(others.items(), key=lambda item: int(item[1].right.sum()))
        fell, stood = (int((a & ~b).sum()) for a, b in ((self.right, strongest.right), (strongest.right, self.right)))
        n = len(self.right)
        figure = (
            f"{in_percent(share(self.right))} of {n} images survive; {in_percent(share(strongest.right))} under {name}"
        )
        finding = CheckResult("no other attack is clearly stronger", not clearly(fell, stood, n), figure, WEAK)
        return Comparison([finding], n, smallest_gap(n), () if tried_standard else ("attack=standard",))


@dataclass(frozen=True, kw_only=True)
class AttackDistilled:
    """Attack networks trained by defensive distillation at each `temperature`, by each of the `attacks`.

    `images` random test images (None: all) are attacked at `epsilon` (pixel units). The images that the attack
    `carried` makes on a network trained as usual are shown to the distilled networks, too.
    """

    columns: ClassVar[Columns] = (
        *conditions("temperature", "attack", "norm", "epsilon"),
        *logged(higher("clean_accuracy")),
        *headline(higher("robust_accuracy")),
        *logged(sometimes(lower("zero_gradient_rate"))),
        *lower("seconds"),
        *neither("verdict"),
    )

    temperature: list[float]
    epsilon: float
    images: int | None

    def __post_init__(self) -> None:
        if not self.temperature:
            raise ValueError("temperature: needs at least one number")
        for temperature in self.temperature:
            DefensiveDistillation(temperature=temperature)  # checks the range
        check_epsilons([self.epsilon])
        require(self, "epsilon", above=0)
        require(self, "images", at_least=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        attacks: Mapping[str, Attack],
        carried: Attack,
    ) -> None:
        """Write one row for each temperature and attack, then the plot."""
        data = context.load(dataset)
        check_pixels(data)
        check_attacks({**{f"attacks.{name}": each for name, each in attacks.items()}, "carried": carried}, data, model)
        specs = {
            temperature: context.spec(data, model, trainer, DefensiveDistillation(temperature=temperature))
            for temperature in sorted(set(self.temperature))
        }
        plain = context.train_or_load(context.spec(data, model, trainer), stage="undistilled").network
        networks = {
            temperature: context.train_or_load(spec, stage=f"distilled at {temperature:g}").network
            for temperature, spec in specs.items()
        }
        test = data.test if self.images is None else random_subset(data.test, self.images, context.seed)
        shown = {f"{temperature:g}": network for temperature, network in networks.items()}
        transferred = self.attack(context, carried, plain, data, test, shown)
        clean: dict[float, Tensor] = {}
        outcomes: dict[float, dict[str, Outcome]] = {}
        for temperature, network in Progress(networks.items(), desc="attacking", unit="network"):
            curves = {name: self.attack(context, each, network, data, test) for name, each in attacks.items()}
            clean[temperature] = next(iter(curves.values())).initially_right
            outcomes[temperature] = {name: outcome(curve) for name, curve in curves.items()}
            told = transferred.attacked[0].transferred[f"{temperature:g}"]
            outcomes[temperature][CARRIED] = Outcome(
                told.predicted == transferred.labels, None, [], transferred.attacked[0].seconds
            )
            tried = any(isinstance(each, Standard) for each in attacks.values())
            self.write(context, temperature, carried, clean[temperature], outcomes[temperature], tried)
        right = {T: {name: one.right for name, one in found.items()} for T, found in outcomes.items()}
        subject = f"{context.record.subject}, {NORM_SYMBOLS[carried.norm.value]} epsilon {self.epsilon:g}"
        context.record.plot("temperature", accuracy_over_temperature(clean, right, subject))

    def attack(
        self,
        context: Context,
        attack: Attack,
        network: nn.Module,
        data: Dataset,
        test: Split,
        shown: Mapping[str, nn.Module] | None = None,
    ) -> RobustnessCurve:
        """Attack `network`; the networks `shown` are evaluated on the same images."""
        fitted, _ = fit_attack(context, attack, network, data)
        with seeded(context.seed):
            return attack_curve(
                network, fitted, batches(test, BATCH, context.hardware.device), [self.epsilon], 0, shown
            )

    def write(
        self,
        context: Context,
        temperature: float,
        attack: Attack,
        clean: Tensor,
        outcomes: Mapping[str, Outcome],
        tried_standard: bool,
    ) -> None:
        """Write the rows of one temperature; the checks and the verdict of the last one are those of the run."""
        last = temperature == max(self.temperature)
        judged = {}
        for name, one in outcomes.items():
            others = {other: result for other, result in outcomes.items() if other != name}
            compared = one.compared(others, tried_standard)
            judged[name] = verdict(one.findings, compared)
            zero = one.zero_gradient
            context.record.metrics(
                {"temperature": temperature, "attack": name, "norm": attack.norm.value, "epsilon": self.epsilon},
                **proportion("clean_accuracy", int(clean.sum()), len(clean)),
                **proportion("robust_accuracy", int(one.right.sum()), len(clean)),
                **({} if zero is None else proportion("zero_gradient_rate", int(zero.sum()), len(zero))),
                seconds=one.seconds,
                verdict=judged[name],
            )
            for finding in (*one.findings, *compared.findings) if last else ():
                context.record.check(f"T = {temperature:g}, {name}: {finding.name}", finding.passed, finding.figure)
        if last:
            weakest = max(outcomes, key=lambda name: share(outcomes[name].right))
            context.record.note(verdict=f"T = {temperature:g}, {weakest}: {judged[weakest]}")


def outcome(curve: RobustnessCurve) -> Outcome:
    """The outcome of an attack at the one epsilon of its curve."""
    attacked = curve.attacked[0]
    findings = [check_gradients(curve), check_finite(curve)]
    return Outcome(attacked.answers.predicted == curve.labels, curve.zero_gradient, findings, attacked.seconds)


def check_attacks(attacks: Mapping[str, Attack], data: Dataset, model: Model) -> None:
    """Raise `InputError` unless all attacks fit model and data, share one norm and are untargeted."""
    with prefix_errors("model"), seeded(0):
        fresh = model.build(input_spec(data))
    norm = attacks["carried"].norm
    for key, attack in attacks.items():
        if attack.target is not None:
            raise InputError(f"{key}.target: must be null; all attacks are compared on the same images")
        if attack.norm is not norm:
            raise InputError(f"{key}.norm: is {attack.norm.value}, and carried.norm {norm.value}; give all the same")
        with prefix_errors(key):
            attack.check(fresh, data.shape)
            check_gradient_access(attack, fresh, data.shape)
