"""The plot of cleaned networks: what is left of a backdoor, and what it costs."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import GREY, new_figure, percent, tidy

CONTROLS = {"none": ("backdoored", "X"), "never_poisoned": ("never poisoned", "*")}
MARKERS = "os^Dv<>p"  # of the shares of tainted images


def success_over_accuracy(
    clean: Mapping[tuple[str, float], Tensor], success: Mapping[tuple[str, float], Tensor], subject: str
) -> Figure:
    """Attack success rate over clean accuracy, with 95 % intervals: a colour for each cleaner, a shape for each share.

    The keys are cleaner and share of tainted images. `clean` (bool [N]) says which test images are classified
    correctly, `success` (bool [M]) which triggered ones are classified as their target. Good is on the lower right.
    """
    figure, axes = new_figure(7.6, 5.2)
    panel = axes[0, 0]
    names = list(dict.fromkeys(name for name, _ in clean if name not in CONTROLS))
    shares = sorted({share for name, share in clean if name not in CONTROLS})
    legend = {}  # label: colour and marker
    for name, share in clean:
        (x, *across), (y, *up) = (with_interval(flags[name, share]) for flags in (clean, success))
        if name in CONTROLS:
            label, marker = CONTROLS[name]
            color = GREY
            legend[label] = color, marker
        else:
            color, marker = LINES[names.index(name) % len(LINES)][0], MARKERS[shares.index(share) % len(MARKERS)]
            legend[name.replace("_", " ")] = color, MARKERS[0]
        ends = {"xerr": [[end] for end in across], "yerr": [[end] for end in up]}
        panel.errorbar(x, y, fmt=marker, color=color, markersize=8, elinewidth=0.8, **ends)
    if len(shares) > 1:
        for marker, share in zip(MARKERS, shares, strict=False):
            legend[f"{percent(share)} of the clean set tainted"] = GREY, marker
    panel.set_ylim(-0.03, 1.03)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(percent)
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", markersize=8, label=label)
        for label, (color, marker) in legend.items()
    ]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=4, fontsize=8)
    tidy(panel, subject, "clean accuracy", "attack success rate")
    return figure


def with_interval(flags: Tensor) -> tuple[float, float, float]:
    """The share of true values, and how far its 95 % interval reaches below and above."""
    count, n = int(flags.sum()), len(flags)
    low, high = wilson_interval(count, n)
    return count / n, count / n - low, high - count / n
