"""Plots of accuracy under attack and of adversarial examples."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from trustml_cli.attacks.measure import EpsilonResult, RobustnessCurve
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.style import BLUE, GREEN, ORANGE, label_answer, name_rows, new_figure, tidy, tile

MARKERS = "s^Dv<>"  # for the other networks
NORM_SYMBOLS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


def robustness_curve(curve: RobustnessCurve, subject: str, norm: str) -> Figure:
    """Accuracy over epsilon, with the 95 % interval as a band and the clean accuracy as a line.

    Other networks that were evaluated on the same images have dotted lines. `subject` names the model and the attack.
    """
    figure, axes = new_figure(6.4, 4.2)
    panel = axes[0, 0]
    epsilons = [attacked.epsilon for attacked in curve.attacked]
    accuracy_line(panel, curve, ORANGE, "o", label="under attack", band="95 % interval")
    for number, name in enumerate(curve.clean_transferred):
        shown_to = [attacked.transferred[name].predicted == curve.labels for attacked in curve.attacked]
        share = [flags.double().mean().item() for flags in shown_to]
        panel.plot(epsilons, share, f"{MARKERS[number % len(MARKERS)]}:", color=GREEN, label=f"shown to {name}")
    clean = clean_accuracy(curve)
    panel.axhline(clean, color=BLUE, linestyle="--", label=f"clean: {clean:.1%}")
    over_epsilon(panel, f"{subject}: {len(curve.labels):,} test images", norm, "accuracy")
    return figure


def defended_curves(curves: Mapping[str, RobustnessCurve], subject: str, norm: str) -> Figure:
    """Accuracy over epsilon of several networks, labelled by their defences, with 95 % intervals as bands."""
    figure, axes = new_figure(6.4, 4.2)
    panel = axes[0, 0]
    for (name, curve), color, marker in zip(curves.items(), (BLUE, ORANGE, GREEN), "so^", strict=False):
        trained = "no defence" if name == "none" else f"trained with {name}"
        accuracy_line(panel, curve, color, marker, label=f"{trained} (clean: {clean_accuracy(curve):.1%})")
    n = len(next(iter(curves.values())).labels)
    over_epsilon(panel, f"{subject}: {n:,} test images, 95 % intervals", norm, "accuracy under attack")
    return figure


def accuracy_line(
    panel: Axes, curve: RobustnessCurve, color: str, marker: str, label: str, band: str | None = None
) -> None:
    """Draw accuracy under attack over epsilon and its 95 % interval; `band` is the interval's legend label, if any."""
    n = len(curve.labels)
    epsilons = [attacked.epsilon for attacked in curve.attacked]
    right = [int((attacked.answers.predicted == curve.labels).sum()) for attacked in curve.attacked]
    low, high = zip(*(wilson_interval(count, n) for count in right), strict=True)
    panel.fill_between(epsilons, low, high, color=color, alpha=0.2, linewidth=0, label=band)
    panel.plot(epsilons, [count / n for count in right], f"{marker}-", color=color, label=label)


def clean_accuracy(curve: RobustnessCurve) -> float:
    """The model's accuracy before the attack."""
    return curve.initially_right.double().mean().item()


def over_epsilon(panel: Axes, title: str, norm: str, what: str) -> None:
    """Format the axes of a plot of percentages over epsilon, starting at 0."""
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlim(left=0)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.legend(frameon=False)
    tidy(panel, title, f"epsilon ({NORM_SYMBOLS[norm]}, pixel units)", what)


def adversarial_examples(
    curve: RobustnessCurve, attacked: EpsilonResult, classes: Sequence[str], count: int, subject: str, norm: str
) -> Figure:
    """Original, perturbation and adversarial image in a column each, images fooled by the attack first."""
    kept = len(curve.examples)
    fell = curve.initially_right[:kept] & (attacked.answers.predicted[:kept] != curve.labels[:kept])
    chosen = fell.int().argsort(descending=True, stable=True)[:count].tolist()  # fooled images first
    perturbation = attacked.examples - curve.examples
    largest = perturbation[chosen].abs().max().item() or 1.0
    figure, axes = new_figure(max(1.45 * len(chosen) + 0.4, 5), 5.3)
    panel = axes[0, 0]
    for column, index in enumerate(chosen):
        label, before, after = (
            int(values[index]) for values in (curve.labels, curve.clean.predicted, attacked.answers.predicted)
        )
        clean_answer = label_answer(classes[before], float(curve.clean.confidence[index]))
        answer = label_answer(classes[after], float(attacked.answers.confidence[index]))
        tile(panel, 0, column, curve.examples[index], clean_answer, GREEN if before == label else ORANGE)
        tile(panel, 1, column, 0.5 + perturbation[index] / (2 * largest))
        tile(panel, 2, column, attacked.examples[index], answer, GREEN if after == label else ORANGE)
    factor = 0.5 / largest
    name_rows(panel, ["original", f"perturbation\n×{factor:.3g} around grey", "adversarial"])
    figure.suptitle(f"{subject}, {NORM_SYMBOLS[norm]} epsilon {attacked.epsilon:g}", fontsize=11)
    figure.supxlabel("green: the right class, orange: a wrong one; with the model's confidence", fontsize=8)
    # the layout is fixed; constrained layout would take longer than the rest of a sweep's job
    figure.set_layout_engine(None)
    figure.subplots_adjust(left=0.5 / figure.get_figwidth(), right=0.99, top=0.9, bottom=0.06)
    return figure
