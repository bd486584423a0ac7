"""Plots of rectified images and of the accuracy with a rectifier."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from trustml_cli.attacks.measure import predict_images
from trustml_cli.defences.measure import RectifiedResult
from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.plots.style import (
    BLUE,
    GAP,
    GREEN,
    GREY,
    ORANGE,
    class_name,
    name_rows,
    new_figure,
    percent,
    tidy,
    tile,
)


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
    panel.yaxis.set_major_formatter(percent)
    tidy(panel, f"{subject}\n{len(labels[0]):,} test images, 95 % intervals", "", "accuracy")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


@torch.no_grad()
def rectified_images(
    shown: Mapping[tuple[str, str], RectifiedResult],
    guarded: nn.Sequential,
    threshold: float,
    classes: Sequence[str],
    count: int,
    subject: str,
) -> Figure:
    """The first images of each kind, perturbed and rectified, each with the classifier's answer.

    Orange: another class than the true one, which stands above the clean images.
    """
    device = next(guarded.parameters()).device
    rows: list[tuple[str, Tensor, list[str]]] = []
    for (name, made_on), one in shown.items():
        images = one.examples[:count].to(device)
        marks = [" flagged" if score > threshold else "" for score in one.score[:count].tolist()]
        title = "clean" if name == "none" else f"{name},\nmade on\n{made_on}"
        rows += [(title, images, [""] * count), ("rectified", guarded[0](images), marks)]
    labels = next(iter(shown.values())).labels[:count].tolist()
    figure, axes = new_figure(1.15 * len(labels) + 0.9, 1.2 * len(rows) + 1.0)
    panel = axes[0, 0]
    for row, (_, images, marks) in enumerate(rows):
        said = predict_images(guarded[1], images)
        for column, (label, own) in enumerate(zip(labels, said.predicted.tolist(), strict=True)):
            color = GREEN if own == label else ORANGE
            tile(panel, row, column, images[column], f"{class_name(classes, own)}{marks[column]}", color)
            if not row:
                height = images.shape[2] / images.shape[3]
                place = column * (1 + GAP) + 0.5
                panel.text(place, -4 * GAP * height, f"is {classes[label]}", fontsize=8, color=GREY, ha="center")
    name_rows(panel, [name for name, _, _ in rows])
    panel.set_ylim(top=-7 * GAP)
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel("above each image the classifier's answer; orange: a wrong class", fontsize=8)
    return figure
