"""Plots of conformal prediction sets: their sizes, their coverage, and examples."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.calibration import unit_of, words
from trustml_cli.plots.lines import Line, few_places, shares
from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, new_figure, percent, show_image, tidy

NAMED = 4  # classes of a set that are written out


def sizes_of_sets(sizes: Mapping[str, Tensor], covered: Mapping[str, Tensor], coverage: float, subject: str) -> Figure:
    """For each method, how many sets have each size, and the coverage of those, with intervals."""
    figure, axes = new_figure(max(5.0, 0.8 + 3.1 * len(sizes)), 5.0, 2, len(sizes), heights=[2, 1])
    for column, (name, own) in enumerate(sizes.items()):
        top, bottom = axes[0, column], axes[1, column]
        values = sorted({*own.tolist()})
        counts = [int((own == value).sum()) for value in values]
        bottom.bar(values, [count / len(own) for count in counts], color=BLUE)
        held = [int(covered[name][own == value].sum()) for value in values]
        rates = [right / count for right, count in zip(held, counts, strict=True)]
        ends = [wilson_interval(right, count) for right, count in zip(held, counts, strict=True)]
        errors = [
            [share - low for share, (low, _) in zip(rates, ends, strict=True)],
            [high - share for share, (_, high) in zip(rates, ends, strict=True)],
        ]
        top.errorbar(values, rates, errors, color=ORANGE, marker="o", linestyle="none", capsize=2)
        top.axhline(coverage, color=GREY, linestyle="--", linewidth=0.8, label=f"target: {percent(coverage)}")
        for panel in (top, bottom):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.yaxis.set_major_formatter(percent)
            panel.set_xlim(min(values) - 0.6, max(values) + 0.6)
            panel.set_ylim(0, 1.05)
        whole = float(covered[name].double().mean())
        size = float(own.double().mean())
        tidy(
            top,
            f"{name.upper()}: {in_percent(whole)} covered,\n{size:.2f} classes on average",
            "",
            "" if column else "coverage",
        )
        tidy(bottom, "", "classes in the set", "" if column else "share of images")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=9)
    figure.suptitle(f"{subject}, n = {len(own):,}", fontsize=11)
    return figure


def coverage_under_perturbation(rows: Sequence[Mapping[str, Any]], coverage: float, subject: str) -> Figure:
    """For each kind of perturbation, the coverage (above) and the size of the sets over its strength."""
    kinds = list(dict.fromkeys(row["perturbation"] for row in rows if row["strength"]))
    figure, axes = new_figure(max(6.4, 1.6 + 3.6 * len(kinds)), 6.4, 2, len(kinds))
    for column, kind in enumerate(kinds):
        own = [row for row in rows if row["perturbation"] == kind or not row["strength"]]
        for panel, value, label in zip(
            axes[:, column], ("coverage", "set_size"), ("coverage", "classes in the set"), strict=True
        ):
            for (color, line), name in zip(LINES, dict.fromkeys(row["conformal"] for row in own), strict=False):
                curve = [row for row in own if row["conformal"] == name]
                drawn = Line.of_rows(curve, "strength", value)
                drawn.draw(panel, color, name.upper(), linestyle=line)
            few_places(panel, drawn.x)
            panel.set_ylim(0, None)
            top = value == "coverage"
            tidy(panel, words(kind) if top else "", "" if top else unit_of(kind, own), "" if column else label)
        axes[0, column].axhline(
            coverage, color=GREY, linestyle="--", linewidth=0.8, label=f"target: {percent(coverage)}"
        )
        shares(axes[0, column])
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(f"{subject}: sets for clean images, measured on perturbed ones", fontsize=11)
    return figure


def sets_of_images(images: Tensor, names: Sequence[Sequence[str]], right: Sequence[str], subject: str) -> Figure:
    """Images [M, C, H, W] with the classes in their sets, and the right class below."""
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure, axes = new_figure(max(5.0, 1.5 * columns), 0.7 + 1.9 * rows, rows, columns)
    for panel, image, members, answer in zip(axes.flat, images, names, right, strict=False):
        shown = [*members[:NAMED], *([f"and {len(members) - NAMED} more"] if len(members) > NAMED else [])]
        lines = [", ".join(shown[at : at + 2]) for at in range(0, len(shown), 2)] or ["no class"]
        show_image(panel, image, "\n".join(lines), GREEN if answer in members else ORANGE)
        panel.set_xlabel(f"is {answer}", fontsize=8)
    for panel in axes.flat[len(images) :]:
        panel.set_axis_off()
    figure.suptitle(f"{subject}: the largest sets", fontsize=11)
    figure.supxlabel("above each image its set; green: holds the right class, orange: does not", fontsize=8)
    return figure
