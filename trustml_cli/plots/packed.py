"""Plots of the memory and time of a bit-packed network."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from trustml_cli.models.cost import Cost
from trustml_cli.plots.style import BLUE, GREY, ORANGE, logarithmic, new_figure, tidy


def packed_layers(rows: Sequence[Cost], subject: str) -> Figure:
    """Weight memory and time of each layer, float32 against packed, on logarithmic axes with their ratio."""
    figure, axes = new_figure(10, 0.42 * len(rows) + 1.7, columns=2)
    kib = [(row.float32_bytes / 1024, row.packed_bytes / 1024) for row in rows]
    ms = [(row.float32_ms, row.packed_ms) for row in rows]
    for panel, pairs, less, more in ((axes[0, 0], kib, "smaller", "larger"), (axes[0, 1], ms, "faster", "slower")):
        for place, (before, after) in enumerate(pairs):
            panel.plot([before, after], [place, place], color=GREY, linewidth=1.5, zorder=1)
            ratio = before / after
            word = f"{ratio:.3g}× {less}" if ratio >= 1 else f"{1 / ratio:.3g}× {more}"
            panel.annotate(
                word, (max(before, after), place), (8, 0), textcoords="offset points", va="center", fontsize=8
            )
        places = range(len(pairs))
        panel.scatter([before for before, _ in pairs], places, color=ORANGE, marker="s", label="float32")
        panel.scatter([after for _, after in pairs], places, color=BLUE, label="packed")
        logarithmic(panel.xaxis)
        low, high = min(map(min, pairs)), max(map(max, pairs))
        panel.set_xlim(low / 2, high * (high / low) ** 0.4)  # room for the annotations
        panel.set_yticks(places, [f"{row.layer}: {row.kind}" for row in rows], fontsize=8)
        panel.set_ylim(len(rows) - 0.5, -0.5)
    axes[0, 1].set_yticklabels([])
    first = rows[0]
    threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
    tidy(axes[0, 0], "Memory of the weights", "KiB", "")
    tidy(axes[0, 1], f"Time for {first.batch} images on {threads}", f"ms, median of {first.n}", "")
    for panel in axes[0]:
        panel.grid(visible=False, axis="y")
    figure.suptitle(f"{subject}: float32 and packed", fontsize=11)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure
