"""Plots of accuracy under attack and of adversarial examples."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.attacks.robustness_curve import EpsilonResult, RobustnessCurve
from trustml_cli.metrics.intervals import median, wilson_interval
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    class_name,
    label_answer,
    legend_below,
    name_rows,
    new_figure,
    percent,
    tidy,
    tile,
)

EPSILONS = 8  # most epsilons that examples are shown of
MARKERS = "s^Dv<>"  # for the other networks
NORM_SYMBOLS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
UNITS = {"l0": "changed values"}  # of epsilon, where they are not those of pixels


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
    if curve.distance is not None:
        every_epsilon(panel, curve.distance, epsilons[-1])
    clean = clean_accuracy(curve)
    panel.axhline(clean, color=BLUE, linestyle="--", label=f"clean: {in_percent(clean)}")
    over_epsilon(panel, f"{subject}: {len(curve.labels):,} test images", norm, "accuracy")
    return figure


def defended_curves(curves: Mapping[str, RobustnessCurve], subject: str, norm: str) -> Figure:
    """Accuracy over epsilon of several networks, labelled by their defences, with 95 % intervals as bands.

    Of a single epsilon there is a line from the clean accuracy, at epsilon 0.
    """
    figure, axes = new_figure(6.4, 4.2)
    panel = axes[0, 0]
    for (name, curve), color, marker in zip(curves.items(), (BLUE, ORANGE, GREEN), "so^", strict=False):
        trained = "no defence" if name == "none" else f"trained with {name}"
        accuracy_line(panel, curve, color, marker, label=f"{trained} (clean: {in_percent(clean_accuracy(curve))})")
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
    if len(epsilons) == 1 and epsilons[0]:
        epsilons, right = [0, *epsilons], [int(curve.initially_right.sum()), *right]
    low, high = zip(*(wilson_interval(count, n) for count in right), strict=True)
    panel.fill_between(epsilons, low, high, color=color, alpha=0.2, linewidth=0, label=band)
    panel.plot(epsilons, [count / n for count in right], f"{marker}-", color=color, label=label)


def every_epsilon(panel: Axes, distance: Tensor, last: float) -> None:
    """Draw the share of images with a larger distance over every epsilon up to `last`, and mark the median distance."""
    falls = distance[distance <= last].sort().values.tolist()
    share = [1 - number / len(distance) for number in range(len(falls) + 1)]
    panel.step([0, *falls, last], [*share, share[-1]], where="post", color=GREY, linewidth=1, label="at every epsilon")
    middle = median("", distance)
    if middle[""] <= last:
        panel.axvline(middle[""], color=GREY, linestyle=":", linewidth=1, label=f"median distance: {middle['']:.3g}")


def clean_accuracy(curve: RobustnessCurve) -> float:
    """The model's accuracy before the attack."""
    return curve.initially_right.double().mean().item()


def over_epsilon(panel: Axes, title: str, norm: str, what: str) -> None:
    """Format the axes of a plot of percentages over epsilon, starting at 0."""
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlim(left=0)
    panel.yaxis.set_major_formatter(percent)
    legend_below(panel)
    tidy(panel, title, f"epsilon ({NORM_SYMBOLS[norm]}, {UNITS.get(norm, 'pixel units')})", what)


def fooled_first(curve: RobustnessCurve, count: int) -> list[int]:
    """Indices of `count` kept images: those that the attack fools at its largest epsilon, then the others."""
    kept = len(curve.examples)
    fell = curve.initially_right[:kept] & (curve.attacked[-1].answers.predicted[:kept] != curve.labels[:kept])
    return fell.int().argsort(descending=True, stable=True)[:count].tolist()


def adversarial_examples(curve: RobustnessCurve, classes: Sequence[str], count: int, subject: str, norm: str) -> Figure:
    """The same images before the attack and at each epsilon above 0, in a column each, then the last perturbation.

    Above each original its class; at more than `EPSILONS` epsilons, the largest and evenly spaced others.
    """
    chosen = fooled_first(curve, count)
    attacked = evenly([one for one in curve.attacked if one.epsilon > 0], EPSILONS)
    rows = len(attacked) + 2
    figure, axes = new_figure(max(1.3 * len(chosen) + 0.6, 5), 1.45 * rows + 0.9)
    panel, last = axes[0, 0], attacked[-1]
    perturbation = last.examples - curve.examples
    largest = perturbation[chosen].abs().max().item() or 1.0
    for column, index in enumerate(chosen):
        label = int(curve.labels[index])
        shown = [(curve.examples, curve.clean), *((one.examples, one.answers) for one in attacked)]
        for row, (images, answers) in enumerate(shown):
            answer = int(answers.predicted[index])
            caption = label_answer(class_name(classes, answer), float(answers.confidence[index]))
            is_first = "" if row else f"is {classes[label]}\n"
            tile(panel, row, column, images[index], is_first + caption, GREEN if answer == label else ORANGE)
        tile(panel, rows - 1, column, 0.5 + perturbation[index] / (2 * largest))
    names = ["original", *(f"ε = {one.epsilon:g}" for one in attacked)]
    name_rows(panel, [*names, f"change at {last.epsilon:g}\n×{0.5 / largest:.3g} around grey"])
    height = figure.get_figheight()
    title = f"{subject}: the same images at each epsilon ({NORM_SYMBOLS[norm]})"
    figure.suptitle(title, y=1 - 0.08 / height, fontsize=11)
    figure.supxlabel("green: the right class, orange: a wrong one; with the model's confidence", fontsize=8)
    # the layout is fixed; constrained layout would take longer than the rest of a sweep's job
    figure.set_layout_engine(None)
    figure.subplots_adjust(left=0.5 / figure.get_figwidth(), right=0.99, top=1 - 0.65 / height, bottom=0.35 / height)
    return figure


def evenly(values: Sequence[EpsilonResult], most: int) -> list[EpsilonResult]:
    """At most `most` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(number * (len(values) - 1) / (most - 1))] for number in range(most)]
