"""Plots of how well scores separate outliers from inliers."""

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trustml_cli.metrics.numbers import in_percent
from trustml_cli.ood.measure import DetectionResult
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, logarithmic, new_figure, percent, tidy

LINES = (  # colour and dash pattern of each curve, distinguishable in black and white too
    (BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), ("#8C3C78", ":"), ("#8A6A00", (0, (6, 1, 1, 1))),
    ("black", (0, (1, 1))), (ORANGE, "-"), (BLUE, "--"), ("#8C3C78", "-."), (GREEN, ":"), ("black", (0, (6, 1, 1, 1))),
    ("#8A6A00", (0, (1, 1))),
)  # fmt: skip


def score_histograms(results: Mapping[str, Mapping[str, DetectionResult]], subject: str) -> Figure:
    """For each score, histograms of the inliers and of each set of outliers, and the threshold.

    `results` are by score, then by set of outliers. Scores are clipped to the range between their 0.2 % and 99.8 %
    quantiles.
    """
    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    figure, axes = new_figure(max(6.4, 3.6 * columns), 1.1 + 2.8 * rows, rows, columns)
    for panel, (name, by_kind) in zip(axes.flat, results.items(), strict=False):
        score_panel(panel, name, by_kind)
    for panel in axes.flat[len(results) :]:
        panel.set_axis_off()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{subject}\nhigher is further from the training images; what lies left of the line passes", fontsize=11
    )
    return figure


def score_panel(panel: Axes, name: str, by_kind: Mapping[str, DetectionResult]) -> None:
    """The histograms of one score: inliers, and outliers by the name of their set; one set is filled."""
    first = next(iter(by_kind.values()))
    kinds = {"outliers" if len(by_kind) == 1 else kind: result.outliers for kind, result in by_kind.items()}
    every = torch.cat([first.inliers, *kinds.values()])
    low, high = every.quantile(0.002).item(), every.quantile(0.998).item()
    smallest, largest = (size(map(len, (first.inliers, *kinds.values()))) for size in (min, max))
    bins = min(40, max(8, 2 * round(smallest**0.5)))
    for number, (label, scores) in enumerate({"inliers": first.inliers, **kinds}.items()):
        shown, weights = scores.clamp(low, high).numpy(), torch.full_like(scores, 1 / len(scores)).numpy()
        color, line = LINES[number % len(LINES)]
        filled = not number or len(kinds) == 1
        look = {"bins": bins, "range": (low, high), "weights": weights, "linestyle": "-" if filled else line}
        look |= {"histtype": "stepfilled", "facecolor": f"{color}30"} if filled else {"histtype": "step"}
        panel.hist(shown, **look, edgecolor=color, linewidth=1.3, label=f"{label} (n = {len(scores):,})")
    panel.axvline(first.threshold, color="black", linestyle="--", linewidth=1.2, label="threshold")
    logarithmic(panel.yaxis)
    panel.set_ylim(0.5 / largest, 1.5)
    panel.yaxis.set_major_formatter(percent)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    shares = [result.outliers_passed / len(result.outliers) for result in by_kind.values()]
    outside = " to ".join(dict.fromkeys(in_percent(share) for share in (min(shares), max(shares))))
    title = f"{name}: {in_percent(first.inliers_passed / len(first.inliers))} of inliers,\n{outside} of outliers pass"
    tidy(panel, title, "score", "share of images")


def roc_curves(
    results: Mapping[str, Mapping[str, DetectionResult]],
    subject: str,
    kinds: tuple[str, str] = ("inliers", "outliers"),
) -> Figure:
    """ROC curves of every score: true positive rate (outliers) over false positive rate (inliers, logarithmic axis).

    `results` are by set of outliers, which has a panel of its own, then by score. `kinds` are the names of the
    negatives and the positives in the axis labels.
    """
    if len(results) == 1:
        (by_score,) = results.values()
        figure, axes = new_figure(7.2, 5.4)
        roc_panel(axes[0, 0], by_score, subject, kinds)
        columns = 2 if max(map(len, by_score)) < 15 else 1  # longer names do not fit in two columns
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
        return figure
    rows = -(-len(results) // 2)
    figure, axes = new_figure(11, 0.6 + 5.8 * rows, rows, 2)
    for panel, (name, by_score) in zip(axes.flat, results.items(), strict=False):
        roc_panel(panel, by_score, f"outliers: {name}", kinds)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=8)
    for panel in axes.flat[len(results) :]:
        panel.set_axis_off()
    figure.suptitle(subject, fontsize=11)
    return figure


def roc_panel(panel: Axes, results: Mapping[str, DetectionResult], title: str, kinds: tuple[str, str]) -> None:
    """The ROC curves of the scores in `results`, with their measures as labels."""
    least = 0.5 / max(len(result.inliers) for result in results.values())
    for number, (name, result) in enumerate(results.items()):
        color, line = LINES[number % len(LINES)]
        found = result.separation
        label = f"{name}: AUROC {found.auroc:.3f}, FPR at 95 % TPR {in_percent(found.fpr_at_95_tpr_outliers_positive)}"
        panel.plot([max(rate, least) for rate in found.fpr], found.tpr, linestyle=line, color=color, label=label)
    chance = torch.logspace(torch.tensor(least).log10().item(), 0, 50).tolist()
    panel.plot(chance, chance, color=GREY, linewidth=0.8, label="chance")
    panel.axhline(0.95, color=GREY, linewidth=0.8, linestyle=":")
    logarithmic(panel.xaxis)
    panel.set_xlim(least, 1.05)
    panel.set_ylim(-0.01, 1.01)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(percent)
    tidy(panel, title, f"{kinds[0]} flagged (false positives)", f"{kinds[1]} flagged (true positives)")
