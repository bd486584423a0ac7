"""Plot of adversarial images with the answers of every network that they are shown to."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from trustml_cli.attacks.robustness_curve import EpsilonResult, RobustnessCurve
from trustml_cli.plots.robustness import NORM_SYMBOLS
from trustml_cli.plots.style import GREEN, ORANGE, class_name, label_answer, name_rows, new_figure, tile


def transferred_answers(
    curve: RobustnessCurve,
    attacked: EpsilonResult,
    model: str,
    classes: Sequence[str],
    count: int,
    subject: str,
    norm: str,
) -> Figure:
    """One column per image: the image as `model` answers it, and its adversarial copy as each network answers that.

    Images that fool `model` come first.
    """
    kept = len(curve.examples)
    fell = curve.initially_right[:kept] & (attacked.answers.predicted[:kept] != curve.labels[:kept])
    chosen = fell.int().argsort(descending=True, stable=True)[:count].tolist()
    rows = {f"original,\n{model}": (curve.examples, curve.clean)}
    rows |= {
        f"adversarial,\n{name}": (attacked.examples, answers)
        for name, answers in {model: attacked.answers, **attacked.transferred}.items()
    }
    figure, axes = new_figure(max(1.45 * len(chosen) + 0.6, 5), 1.7 * len(rows) + 0.8)
    panel = axes[0, 0]
    for row, (images, answers) in enumerate(rows.values()):
        for column, index in enumerate(chosen):
            answer = int(answers.predicted[index])
            color = GREEN if answer == curve.labels[index] else ORANGE
            tile(
                panel,
                row,
                column,
                images[index],
                label_answer(class_name(classes, answer), float(answers.confidence[index])),
                color,
            )
    name_rows(panel, list(rows))
    figure.suptitle(f"{subject}, {NORM_SYMBOLS[norm]} epsilon {attacked.epsilon:g}", fontsize=11)
    figure.supxlabel("green: the right class, orange: a wrong one; with the network's confidence", fontsize=8)
    return figure
