"""Plots of how training images support a classifier's answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.ood.dknn import Support
from trustml_cli.plots.calibration import FEWEST, counts_in_bins, reliability_points
from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import GAP, GREY, ORANGE, name_rows, new_figure, percent, tidy, tile

BINS = 10  # of credibility


@dataclass(frozen=True)
class Judged:
    """What a network, its neighbours and other detectors say about N images; all on the CPU.

    `images` are [N, C, H, W], `predicted` the network's classes [N] with softmax `confidence` [N], `agreeing` [L, N]
    the share of neighbours of that class in each of `layers`, and `scores` those of other detectors, [N] each.
    """

    images: Tensor
    predicted: Tensor
    confidence: Tensor
    layers: Sequence[str]
    support: Support
    agreeing: Tensor
    scores: Mapping[str, Tensor]


def all_of(parts: Sequence[Judged]) -> Judged:
    """The images of all parts together."""
    support = Support(
        torch.cat([part.support.p_values for part in parts]),
        torch.cat([part.support.by_layer for part in parts], 1),
        torch.cat([part.support.neighbours for part in parts], 1),
    )
    images, predicted, confidence = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("images", "predicted", "confidence")
    )
    agreeing = torch.cat([part.agreeing for part in parts], 1)
    scores = {name: torch.cat([part.scores[name] for part in parts]) for name in parts[0].scores}
    return Judged(images, predicted, confidence, parts[0].layers, support, agreeing, scores)


def auroc_bars(areas: Mapping[str, Mapping[str, tuple[float, float, float]]], subject: str) -> Figure:
    """The AUROC of each score, with its 95 % interval, for each kind of images; `areas` are by kind, then by score."""
    figure, axes = new_figure(max(6.4, 1.6 * len(areas) + 1.2), 4.2)
    panel, names = axes[0, 0], list(next(iter(areas.values())))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        values, low, high = zip(*(by_score[name] for by_score in areas.values()), strict=True)
        reach = [[value - end for value, end in zip(values, low, strict=True)],
                 [end - value for value, end in zip(values, high, strict=True)]]  # fmt: skip
        places = [place + (number - (len(names) - 1) / 2) * width for place in range(len(areas))]
        label = "credibility (dknn)" if name == "dknn" else name
        panel.bar(
            places,
            values,
            width,
            color=LINES[number % len(LINES)][0],
            label=label,
            yerr=reach,
            error_kw={"linewidth": 0.8},
        )
    panel.axhline(0.5, color=GREY, linewidth=0.8, linestyle="--")
    panel.set_xticks(range(len(areas)), list(areas))
    panel.set_ylim(0, 1.02)
    tidy(panel, f"Distinguished from clean images: {subject}", "", "AUROC, with 95 % interval (chance 0.5)")
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    return figure


def credibility_curves(judged: Mapping[str, Judged], significance: float, subject: str) -> Figure:
    """The share of each kind of images with at most a given credibility."""
    figure, axes = new_figure(6.8, 4.6)
    panel = axes[0, 0]
    for number, (name, result) in enumerate(judged.items()):
        values = result.support.credibility.sort().values
        color, line = LINES[number % len(LINES)]
        shares = torch.arange(1, len(values) + 1) / len(values)
        label = f"{name} (mean {values.mean():.2f})"
        panel.step(
            [0, *values.tolist(), 1], [0, *shares.tolist(), 1], where="post", color=color, linestyle=line, label=label
        )
    panel.axvline(significance, color=GREY, linewidth=0.8, linestyle=":")
    panel.yaxis.set_major_formatter(percent)
    panel.set_xlim(-0.01, 1.01)
    panel.set_ylim(-0.01, 1.01)
    title = f"{subject}\nleft of the dotted line images are flagged"
    tidy(panel, title, "credibility", "share of images with at most this credibility")
    panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def support_by_layer(judged: Mapping[str, Judged], subject: str) -> Figure:
    """The mean share of neighbours of the network's own answer, layer by layer, for each kind of images."""
    layers = next(iter(judged.values())).layers
    figure, axes = new_figure(max(6.8, 0.9 * len(layers) + 3), 4.4)
    panel = axes[0, 0]
    for number, (name, result) in enumerate(judged.items()):
        color, line = LINES[number % len(LINES)]
        panel.plot(
            range(len(layers)),
            result.agreeing.mean(1),
            marker="o",
            markersize=4,
            color=color,
            linestyle=line,
            label=name,
        )
    panel.set_xticks(range(len(layers)), layers, rotation=30, ha="right", fontsize=8)
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(percent)
    tidy(
        panel,
        f"Neighbours of the network's answer: {subject}",
        "layer, from the first to the last",
        "share of neighbours",
    )
    panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def reliability(judged: Mapping[str, Judged], labels: Tensor, subject: str) -> Figure:
    """Accuracy in bins of credibility (of the neighbours' answer) and of softmax confidence (of the network's).

    `judged` are kinds of images of the classes `labels` [N]; each kind has a column.
    """
    figure, axes = new_figure(max(5.0, 0.8 + 2.3 * len(judged)), 5.6, 2, len(judged))
    for column, (name, result) in enumerate(judged.items()):
        answers = (
            (result.support.credibility, result.support.predicted == labels),
            (result.confidence, result.predicted == labels),
        )
        color, _ = LINES[column % len(LINES)]
        for panel, (certainty, correct) in zip(axes[:, column], answers, strict=True):
            counts, right, sure = counts_in_bins(certainty, correct, BINS)
            reliability_points(panel, counts, right, sure, color, fewest=FEWEST)
        tidy(axes[0, column], name, "credibility", "" if column else "accuracy of\nthe neighbours' answers")
        tidy(axes[1, column], "", "softmax confidence", "" if column else "accuracy of\nthe network's answers")
        for panel in axes[:, column]:
            panel.set_xticks([0, 0.5, 1])
    figure.suptitle(f"{subject}, with 95 % intervals; pale: fewer than {FEWEST} images", fontsize=11)
    return figure


def nearest_images(
    rows: Sequence[tuple[str, Judged, int, int | None]], shown: int, references: Tensor, labels: Tensor,
    layers: Mapping[int, str], classes: Sequence[str], subject: str,
) -> Figure:  # fmt: skip
    """Images, each with its `shown` nearest `references` [M, C, H, W] of classes `labels` [M] in some `layers`.

    `rows` are the kind of an image, its results, its number among them, and its true class if it has one; `layers` the
    names of layers by number.
    """
    figure, axes = new_figure(2.4 + 0.75 * (shown * len(layers) + 2), 1.2 + 1.0 * len(rows))
    panel = axes[0, 0]
    for row, (_, result, number, true) in enumerate(rows):
        support = result.support
        answer, credibility = int(support.predicted[number]), support.credibility[number].item()
        wrong = true is not None and answer != true
        caption = f"{classes[answer]} ({credibility:.2f})" + (f", is {classes[true or 0]}" if wrong else "")
        tile(panel, row, 0, result.images[number], caption, ORANGE if wrong else "black")
    name_rows(panel, [name for name, *_ in rows])
    for column, (layer, name) in enumerate(layers.items()):
        left = 1.6 + column * (shown + 0.5)
        for row, (_, result, number, _) in enumerate(rows):
            for place, index in enumerate(result.support.neighbours[layer, number, :shown].tolist()):
                same = int(labels[index]) == int(result.support.predicted[number])
                color = "black" if same else ORANGE
                tile(panel, row, left + place, references[index], classes[int(labels[index])], color)
        panel.text((left + shown / 2) * (1 + GAP), -0.35, name, fontsize=9, color=GREY, ha="center", va="bottom")
    panel.set_xlim(0, (left + shown) * (1 + GAP))
    panel.set_ylim(top=-0.6)
    title = (
        "the neighbours' answer (its credibility); the nearest training images in each layer, other classes in orange"
    )
    panel.set_title(f"{subject}\n{title}", fontsize=10)
    return figure
