"""Plots of fooling images: noise that is classified as a target class with high confidence."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, new_figure, percent, show_image, tidy

COLOURS = (GREY, BLUE, ORANGE, GREEN)
SHOWN = 20  # most classes of a picture


def fooling_images(
    shown: Mapping[str, Mapping[str, tuple[Tensor, float, bool]]], subject: str, epsilon: float
) -> Figure:
    """One image [C, H, W] for each method (rows) and target (columns), with the confidence in the target.

    The caption is orange if the target is the predicted class. Of many targets the first `SHOWN` are shown.
    """
    labels, among = first_of(next(iter(shown.values())))
    figure, axes = new_figure(max(1.15 * len(labels) + 0.6, 5), 1.4 * len(shown) + 0.9, len(shown), len(labels))
    for row, (name, by_label) in enumerate(shown.items()):
        axes[row, 0].set_ylabel(name.replace("_", " "), fontsize=9, color=GREY)
        for column, label in enumerate(labels):
            image, confidence, taken = by_label[label]
            show_image(axes[row, column], image, f"{label}: {100 * confidence:.0f} %", ORANGE if taken else "black")
    figure.suptitle(f"{subject}: noise changed by up to {epsilon:g} for each class{among}", fontsize=11)
    figure.supxlabel("with the model's confidence in that class; orange where it is the class that it sees", fontsize=8)
    return figure


def fooling_rates(rates: Mapping[str, Mapping[str, float]], subject: str, n: int, confidence: float) -> Figure:
    """The share of fooling images for each target, or the first `SHOWN` of many, one bar per method."""
    labels, among = first_of(next(iter(rates.values())))
    figure, axes = new_figure(max(0.75 * len(labels) + 1.6, 5), 3.8)
    panel, width = axes[0, 0], 0.8 / len(rates)
    for number, (name, by_label) in enumerate(rates.items()):
        places = [column + (number - (len(rates) - 1) / 2) * width for column in range(len(labels))]
        shares = [by_label[label] for label in labels]
        panel.bar(places, shares, width, color=COLOURS[number % 4], label=name.replace("_", " "))
    panel.set_xticks(range(len(labels)), labels)
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(percent)
    tidy(
        panel,
        f"{subject}: {n:,} noise images for each class{among}",
        "classified as",
        f"fooled, confidence ≥ {percent(confidence)}",
    )
    panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def first_of(by_label: Mapping[str, object]) -> tuple[list[str], str]:
    """The labels that a picture has room for, and what its title says where these are not all."""
    labels = list(by_label)
    return labels[:SHOWN], f", the first {SHOWN} of {len(labels):,}" if len(labels) > SHOWN else ""
