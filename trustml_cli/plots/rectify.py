"""Plots of rectified images and of the accuracy with a rectifier."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import nn

from trustml_cli.attacks.measure import predict_images
from trustml_cli.defences.measure import RectifiedResult
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, label_answer, new_figure, show_image, tidy


def accuracies(shown: Mapping[tuple[str, str], RectifiedResult], threshold: float, subject: str) -> Figure:
    """Accuracy without rectifier, with it, and with it only on detected images, for each kind of image."""
    figure, axes = new_figure(max(6.4, 1.5 * len(shown) + 1.5), 4.4)
    panel = axes[0, 0]
    kinds = {
        "classifier": (GREY, [one.bare for one in shown.values()]),
        "rectified": (BLUE, [one.rectified for one in shown.values()]),
        "rectified where flagged": (GREEN, [one.combined(threshold) for one in shown.values()]),
    }
    labels = [one.labels for one in shown.values()]
    for number, (name, (color, said)) in enumerate(kinds.items()):
        right = [int((answers == truth).sum()) for answers, truth in zip(said, labels, strict=True)]
        shares = [count / len(truth) for count, truth in zip(right, labels, strict=True)]
        ends = [wilson_interval(count, len(truth)) for count, truth in zip(right, labels, strict=True)]
        reach = [[share - low for share, (low, _) in zip(shares, ends, strict=True)],
                 [high - share for share, (_, high) in zip(shares, ends, strict=True)]]  # fmt: skip
        places = [row + 0.27 * (number - 1) for row in range(len(shown))]
        panel.bar(places, shares, width=0.26, color=color, label=name)
        panel.errorbar(places, shares, yerr=reach, fmt="none", ecolor="black", capsize=2, linewidth=0.9)
        for place, share, (_, high) in zip(places, shares, ends, strict=True):
            panel.text(place, high + 0.01, f"{100 * share:.1f}", ha="center", va="bottom", fontsize=7)
    names = ["clean" if name == "none" else f"{name}\nmade on {made_on}" for name, made_on in shown]
    panel.set_xticks(range(len(shown)), names, fontsize=8)
    panel.set_ylim(0, 1.1)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    tidy(panel, f"{subject}\n{len(labels[0]):,} test images, 95 % intervals", "", "accuracy")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


@torch.no_grad()
def rectified_images(
    clean: RectifiedResult,
    shown: RectifiedResult,
    guarded: nn.Sequential,
    threshold: float,
    classes: Sequence[str],
    count: int,
    subject: str,
) -> Figure:
    """Clean, perturbed and rectified images with the classifier's predictions, and the rectifier's changes."""
    device = next(guarded.parameters()).device
    before, perturbed = (one.examples[:count].to(device) for one in (clean, shown))
    rectified = guarded[0](perturbed)
    change = rectified - perturbed
    largest = change.abs().max().item() or 1.0
    rows = {"clean": before, "perturbed": perturbed, "rectified": rectified}
    figure, axes = new_figure(max(1.45 * len(before) + 0.6, 5), 7.0, 4, len(before))
    for row, (name, images) in enumerate(rows.items()):
        said = predict_images(guarded[1], images)
        for column in range(len(before)):
            label = int(said.predicted[column])
            color = GREEN if label == int(clean.before[column]) else ORANGE
            caption = label_answer(classes[label], float(said.confidence[column]))
            show_image(axes[row, column], images[column], caption, color)
        axes[row, 0].set_ylabel(name, fontsize=9, color=GREY)
    for column, score in enumerate(shown.score[: len(before)]):
        flagged = "flagged" if score > threshold else "passes"
        show_image(axes[3, column], 0.5 + change[column] / (2 * largest), flagged)
    axes[3, 0].set_ylabel(f"change, ×{0.5 / largest:.2g}", fontsize=9, color=GREY)
    figure.suptitle(f"{subject}\norange: another class than that of the clean image", fontsize=9)
    return figure
