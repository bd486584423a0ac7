"""Plots of distillation: accuracy over size, and accuracy under attack over temperature."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.lines import Line, few_places, figure_of_lines, shares
from trustml_cli.plots.style import BLUE, GREEN, ORANGE, logarithmic, new_figure, percent, tidy
from trustml_cli.training.predict import Answers

COLORS = (BLUE, GREEN, ORANGE)


def accuracy_over_size(answers: Mapping[str, Answers], parameters: Mapping[str, int], subject: str) -> Figure:
    """Test accuracy of each network over its number of weights, with 95 % intervals."""
    figure, axes = new_figure(6.4, 4.2)
    panel = axes[0, 0]
    places = spread(parameters)
    for color, (name, given) in zip(COLORS, answers.items(), strict=True):
        n, right = len(given.labels), int(given.correct.sum())
        low, high = wilson_interval(right, n)
        bars = [[right / n - low], [high - right / n]]
        label = f"{name.replace('_', ' ')}: {in_percent(right / n)}, {parameters[name]:,} weights"
        panel.errorbar([places[name]], [right / n], bars, fmt="o", color=color, capsize=3, label=label)
    logarithmic(panel.xaxis)
    least, most = min(parameters.values()), max(parameters.values())
    panel.set_xlim(least / 2, 2 * most)
    panel.xaxis.set_minor_formatter(lambda *_: "")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.yaxis.set_major_formatter(percent)
    panel.legend(frameon=False, loc="lower right")
    tidy(panel, f"{subject}: {len(given.labels):,} test images", "weights", "accuracy, 95 % intervals")
    return figure


def spread(parameters: Mapping[str, int]) -> dict[str, float]:
    """Where to draw each network: networks of one size lie beside each other."""
    seen: list[int] = []
    places = {}
    for name, count in parameters.items():
        places[name] = count * 1.08 ** seen.count(count)
        seen.append(count)
    return places


def accuracy_over_temperature(
    clean: Mapping[float, Tensor], right: Mapping[float, Mapping[str, Tensor]], subject: str
) -> Figure:
    """Accuracy over the temperature of distillation, with a line for each attack and 95 % intervals.

    `clean` [N] and `right` [N] of each attack, both bool, say by temperature which images are classified correctly.
    """
    lines = {"clean": list(clean.values())}
    lines |= {name: [found[name] for found in right.values()] for name in next(iter(right.values()))}
    n = len(lines["clean"][0])
    temperatures = list(right)

    def finish(panel: Axes) -> None:
        shares(panel)
        few_places(panel, temperatures, log=True)

    drawn = {
        name.replace("_", " "): Line.of_counts(temperatures, [int(each.sum()) for each in flags], n)
        for name, flags in lines.items()
    }
    title = f"{subject}: {n:,} test images"
    return figure_of_lines(drawn, title, "temperature in training", "accuracy, 95 % intervals", finish)
