"""Plots of universal perturbations."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor, nn

from trustml_cli.attacks.measure import predict_images
from trustml_cli.attacks.universal_base import TransferResult
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.plots.robustness import NORM_SYMBOLS
from trustml_cli.plots.style import GREEN, GREY, ORANGE, class_name, label_answer, new_figure, percent, show_image


def transfer_matrix(carried: Sequence[TransferResult], subject: str, norm: str) -> Figure:
    """Fooling rates at one epsilon: learnt on (rows), evaluated on (columns); the last row is noise of equal size."""
    names = list(carried[0].rates)
    rows = [[one.rates[name][0] for name in names] for one in carried]
    rows.append([sum(one.rates[name][1] for one in carried) / len(carried) for name in names])
    figure, axes = new_figure(2.6 + 1.05 * len(names), 2.2 + 0.75 * len(names))
    panel = axes[0, 0]
    image = panel.imshow(rows, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=panel, format=FuncFormatter(percent), label="images whose class changes")
    panel.set_xticks(range(len(names)), names, rotation=20, ha="right")
    panel.set_yticks(range(len(rows)), [*(one.found_on for one in carried), "noise"])
    panel.set_xlabel("shown to")
    panel.set_ylabel("found on")
    panel.axhline(len(carried) - 0.5, color="white", linewidth=3)
    for row, rates in enumerate(rows):
        for column, rate in enumerate(rates):
            color = "white" if rate > 0.55 else "black"
            panel.text(column, row, in_percent(rate), ha="center", va="center", color=color)
    panel.set_title(f"{subject}\n{NORM_SYMBOLS[norm]} epsilon {carried[0].epsilon:.3g}", fontsize=10)
    return figure


def perturbations(carried: Sequence[TransferResult], subject: str, norm: str) -> Figure:
    """The perturbations, centred at grey: one row per model, one column per epsilon."""
    names = list(dict.fromkeys(one.found_on for one in carried))
    epsilons = list(dict.fromkeys(one.epsilon for one in carried))
    figure, axes = new_figure(max(1.9 * len(epsilons) + 0.6, 5), 2.1 * len(names) + 0.7, len(names), len(epsilons))
    for one in carried:
        panel = axes[names.index(one.found_on), epsilons.index(one.epsilon)]
        largest = one.perturbation.abs().max().item() or 1.0
        caption = f"epsilon {one.epsilon:.3g}, ×{0.5 / largest:.3g}"
        show_image(panel, 0.5 + one.perturbation[0] / (2 * largest), caption)
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(f"found on\n{name}", fontsize=9, color=GREY)
    figure.suptitle(
        f"{subject}: one perturbation for all images\n{NORM_SYMBOLS[norm]}, amplified as stated", fontsize=10
    )
    return figure


def fooled_images(
    x: Tensor, carried: Sequence[TransferResult], network: nn.Module, classes: Sequence[str], subject: str
) -> Figure:
    """Images before and after the perturbation at each epsilon, with the answers of the model that it was learnt on."""
    rows = {"before": x} | {f"ε = {one.epsilon:g}": (x + one.perturbation).clamp(0, 1) for one in carried}
    before = predict_images(network, x).predicted
    figure, axes = new_figure(max(1.3 * len(x) + 0.6, 5), 1.4 * len(rows) + 1.1, len(rows), len(x))
    for panels, (name, images) in zip(axes, rows.items(), strict=True):
        answers = predict_images(network, images)
        for column, panel in enumerate(panels):
            label = int(answers.predicted[column])
            color = GREEN if label == int(before[column]) else ORANGE
            caption = label_answer(class_name(classes, label), float(answers.confidence[column]))
            show_image(panel, images[column], caption, color)
        panels[0].set_ylabel(name, fontsize=9, color=GREY)
    figure.suptitle(f"{subject}: the same perturbation on every image, shown to {carried[0].found_on}", fontsize=10)
    figure.supxlabel("orange: another class than before", fontsize=8)
    return figure
