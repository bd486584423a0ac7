"""Plots of membership inference: ROC curves, and the members that are most exposed."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.lines import Line, few_places, figure_of_lines
from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import GREY, logarithmic, name_rows, new_figure, percent, tidy, tile
from trustml_cli.privacy.measure import MembershipResult


def membership_curves(results: Mapping[str, MembershipResult], subject: str) -> Figure:
    """ROC curves of each attack, the mean over the victims, with both axes logarithmic: what counts is on the left."""
    figure, axes = new_figure(6.6, 5.8)
    panel = axes[0, 0]
    least = min(result.fpr[1] for result in results.values())
    for number, (name, result) in enumerate(results.items()):
        color, line = LINES[number % len(LINES)]
        values = result.values
        label = f"{name}: AUC {values['auc']:.3f}, TPR {in_percent(values['tpr_at_1_fpr'])} at 1 % FPR"
        panel.step(result.fpr[1:], result.tpr[1:], where="post", linestyle=line, color=color, label=label)
    panel.plot([least, 1], [least, 1], color=GREY, linewidth=0.8, label="chance")
    for axis in (panel.xaxis, panel.yaxis):
        logarithmic(axis)
        axis.set_major_formatter(percent)
        axis.set_minor_formatter(lambda *_: "")
    panel.set_xlim(least, 1.05)
    panel.set_ylim(least, 1.05)
    tidy(panel, subject, "others called members (false positives)", "members found (true positives)")
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=8)
    return figure


def auc_over_references(results: Mapping[tuple[str, int], MembershipResult], subject: str) -> Figure:
    """The AUC of each attack, with its interval, over the number of references; `results` are by both."""
    counts = sorted({count for _, count in results if count})
    lines = {}
    for name in dict.fromkeys(name for name, count in results if count):
        own = [results[name, count] for count in counts if (name, count) in results]
        low, high = ([result.intervals["auc"][end] for result in own] for end in (0, 1))
        lines[name.replace("_", " ")] = Line(counts, [result.values["auc"] for result in own], low, high)

    def finish(panel: Axes) -> None:
        for name, count in results:
            if not count:
                place = results[name, count].values["auc"]
                panel.axhline(place, color=GREY, linewidth=0.8, linestyle="--")
                panel.text(counts[-1], place, name.replace("_", " "), fontsize=7, color=GREY, ha="right", va="bottom")
        few_places(panel, counts, log=True)

    return figure_of_lines(lines, subject, "references for each victim", "AUC, with 95 % interval", finish)


def exposed_members(
    images: Tensor, names: Sequence[str], nearest: Tensor, others: Sequence[str], subject: str
) -> Figure:
    """The members [M, C, H, W] that an attack is surest of, each above the most similar other training image.

    `names` and `others` are the classes of the two rows.
    """
    figure, axes = new_figure(max(5.0, 0.6 + 1.15 * len(images)), 3.2)
    panel = axes[0, 0]
    for column, (image, name, other, label) in enumerate(zip(images, names, nearest, others, strict=True)):
        tile(panel, 0, column, image, name)
        tile(panel, 1, column, other, label)
    name_rows(panel, ["most exposed", "nearest"])
    title = "the members that the attack is surest of, and the nearest other training images"
    panel.set_title(f"{subject}\n{title}", fontsize=11)
    return figure
