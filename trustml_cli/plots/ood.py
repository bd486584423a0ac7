"""Plots of how well scores separate outliers from inliers."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trustml_cli.ood.measure import DetectionResult
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, logarithmic, new_figure, tidy

LINES = (  # colour and dash pattern of each curve, distinguishable in black and white too
    (BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), ("#8C3C78", ":"), ("#8A6A00", (0, (6, 1, 1, 1))), ("black", (0, (1, 1)))
)  # fmt: skip


def percent(share: float, _: int) -> str:
    """A tick label in percent with as few digits as possible, such as '0.1%'."""
    return f"{100 * share:g}%"


def score_histograms(results: Mapping[str, DetectionResult], subject: str) -> Figure:
    """For each score, histograms of inliers and outliers, and the threshold.

    Scores are clipped to the range between their 0.2 % and 99.8 % quantiles.
    """
    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    figure, axes = new_figure(max(6.4, 3.6 * columns), 1.1 + 2.8 * rows, rows, columns)
    for panel, (name, result) in zip(axes.flat, results.items(), strict=False):
        both = torch.cat([result.inliers, result.outliers])
        low, high = both.quantile(0.002).item(), both.quantile(0.998).item()
        bins = min(40, max(8, 2 * round(len(result.outliers) ** 0.5)))
        for scores, color, label in ((result.inliers, BLUE, "inliers"), (result.outliers, ORANGE, "outliers")):
            shown, weights = scores.clamp(low, high).numpy(), torch.full_like(scores, 1 / len(scores)).numpy()
            words = f"{label} (n = {len(scores):,})"
            look = {"bins": bins, "range": (low, high), "weights": weights, "histtype": "stepfilled"}
            panel.hist(shown, **look, facecolor=f"{color}30", edgecolor=color, linewidth=1.3, label=words)
        panel.axvline(result.threshold, color="black", linestyle="--", linewidth=1.2, label="threshold")
        logarithmic(panel.yaxis)
        panel.set_ylim(0.5 / max(len(result.inliers), len(result.outliers)), 1.5)
        panel.yaxis.set_major_formatter(percent)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        shares = result.inliers_passed / len(result.inliers), result.outliers_passed / len(result.outliers)
        tidy(
            panel, f"{name}: {shares[0]:.1%} of inliers,\n{shares[1]:.1%} of outliers pass", "score", "share of images"
        )
    for panel in axes.flat[len(results) :]:
        panel.set_axis_off()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{subject}\nhigher is further from the training images; what lies left of the line passes", fontsize=11
    )
    return figure


def roc_curves(
    results: Mapping[str, DetectionResult], subject: str, kinds: tuple[str, str] = ("inliers", "outliers")
) -> Figure:
    """ROC curves of every score: true positive rate (outliers) over false positive rate (inliers, logarithmic axis).

    `kinds` are the names of the negatives and the positives in the axis labels.
    """
    figure, axes = new_figure(6.6, 5.4)
    panel = axes[0, 0]
    least = 0.5 / max(len(result.inliers) for result in results.values())
    for number, (name, result) in enumerate(results.items()):
        color, line = LINES[number % len(LINES)]
        found = result.separation
        label = f"{name}: AUROC {found.auroc:.3f}, FPR at 95 % TPR {found.fpr_at_95_tpr_outliers_positive:.1%}"
        panel.plot([max(rate, least) for rate in found.fpr], found.tpr, linestyle=line, color=color, label=label)
    chance = torch.logspace(torch.tensor(least).log10().item(), 0, 50).tolist()
    panel.plot(chance, chance, color=GREY, linewidth=0.8, label="chance")
    panel.axhline(0.95, color=GREY, linewidth=0.8, linestyle=":")
    logarithmic(panel.xaxis)
    panel.set_xlim(least, 1.05)
    panel.set_ylim(-0.01, 1.01)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(percent)
    columns = 2 if max(map(len, results)) < 15 else 1  # longer names do not fit in two columns
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    tidy(panel, subject, f"{kinds[0]} flagged (false positives)", f"{kinds[1]} flagged (true positives)")
    return figure
