"""Pictures of a backdoor: what was planted, and what it opens."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from trustml_cli.data.batches import as_pixels
from trustml_cli.data.dataset import Split
from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, label_answer, new_figure, show_image, tidy
from trustml_cli.statistics import wilson_interval
from trustml_cli.training.predict import Answers

COLORS = (BLUE, ORANGE)
CLASSES_SHOWN = 20  # bars beyond would be too thin to read
WIDTH = 1.25  # inches for an image and its caption


def poisoned_samples(clean: Split, poisoned: Split, chosen: Tensor, classes: Sequence[str], subject: str) -> Figure:
    """The training images `chosen` (int64 [M]) as they were and as they are poisoned, each with its label."""
    figure, axes = new_figure(WIDTH * max(4, len(chosen)) + 0.4, 3.7, rows=2, columns=len(chosen))
    for panels, split, color in zip(axes, (clean, poisoned), (GREEN, ORANGE), strict=True):
        raw, labels = next(split.stream(chosen, len(chosen)))
        for panel, pixels, label in zip(panels, as_pixels(raw), labels.tolist(), strict=True):
            show_image(panel, pixels, classes[label], color)
    name_rows(axes[:, 0].tolist(), ("clean", "poisoned"))
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel("above each image its label: green as it was, orange as it is trained on", fontsize=8)
    return figure


def triggered_predictions(
    triggered: Split, answers: Mapping[str, Answers], classes: Sequence[str], count: int, subject: str
) -> Figure:
    """The first triggered images of each true class in turn, with the answer of every network in `answers`."""
    shown = in_turn(triggered.labels, count)
    figure, axes = new_figure(
        WIDTH * max(4, len(shown)) + 0.4, 1.75 * len(answers) + 0.4, rows=len(answers), columns=len(shown)
    )
    raw, labels = next(triggered.stream(shown, len(shown)))
    for panels, answer in zip(axes, answers.values(), strict=True):
        predicted, confidence = answer.predicted[shown].tolist(), answer.confidence[shown].tolist()
        rows = zip(panels, as_pixels(raw), labels.tolist(), predicted, confidence, strict=True)
        for panel, pixels, label, number, sure in rows:
            show_image(panel, pixels, label_answer(classes[number], sure), GREEN if number == label else ORANGE)
    name_rows(axes[:, 0].tolist(), [f"{name} model" for name in answers])
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel("green: the right class, orange: a wrong one; with the model's confidence", fontsize=8)
    return figure


def answers_by_class(answers: Mapping[str, Answers], classes: Sequence[str], subject: str) -> Figure:
    """How often each network in `answers` names each class, with 95 % intervals; the likeliest classes only."""
    counts = {name: torch.bincount(answer.predicted, minlength=len(classes)) for name, answer in answers.items()}
    shown = (
        torch.stack(list(counts.values())).sum(0).argsort(descending=True, stable=True)[:CLASSES_SHOWN].sort().values
    )
    figure, axes = new_figure(max(6.4, 0.7 * len(shown) + 1.5), 4.0)
    panel, width = axes[0, 0], 0.8 / len(counts)
    for number, (name, count) in enumerate(counts.items()):
        n = int(count.sum())
        values = [int(count[index]) for index in shown]
        shares = [value / n for value in values]
        low, high = zip(*(wilson_interval(value, n) for value in values), strict=True)
        errors = [
            [share - below for share, below in zip(shares, low, strict=True)],
            [above - share for share, above in zip(shares, high, strict=True)],
        ]
        places = [place + (number - (len(counts) - 1) / 2) * width for place in range(len(shown))]
        panel.bar(
            places, shares, width, yerr=errors, color=COLORS[number], ecolor=GREY, capsize=2, label=f"{name} model"
        )
    names = [classes[index] for index in shown]
    panel.set_xticks(range(len(shown)), names, rotation=0 if max(map(len, names)) < 8 else 45)
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.legend(frameon=False)
    tidy(panel, subject, "predicted class", "share of triggered images")
    return figure


def in_turn(labels: Tensor, count: int) -> Tensor:
    """Indices of `count` examples (or all, where there are fewer): the first of each class, then the second."""
    rank = torch.zeros(len(labels), dtype=torch.int64)
    for number in set(labels.tolist()):
        of_class = labels == number
        rank[of_class] = torch.arange(int(of_class.sum()))
    return rank.argsort(stable=True)[:count]


def name_rows(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """A word to the left of each row of images."""
    for panel, name in zip(panels, names, strict=True):
        panel.set_ylabel(name, fontsize=9, color=GREY)
