"""Plot of the training images that are labelled as the target of a backdoor."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.data.batches import as_pixels
from trustml_cli.data.dataset import Split
from trustml_cli.plots.style import GREEN, ORANGE, name_rows, new_figure, outline, tile

PER_ROW = 10  # images of each kind


def target_class(
    clean: Split, poisoned: Split, kinds: Mapping[str, Tensor], classes: Sequence[str], subject: str
) -> Figure:
    """The first training images of each kind as they are trained on, with their labels: a row for each kind.

    `kinds` are indices by name, int64; a kind without images is left out. A label that poisoning changed is orange,
    with the true class.
    """
    shown = {name: each for name, each in kinds.items() if len(each)}
    figure, axes = new_figure(1.1 * PER_ROW + 0.5, 1.35 * len(shown) + 0.8)
    panel = axes[0, 0]
    for row, indices in enumerate(shown.values()):
        (before, true), (raw, labels) = (next(each.stream(indices[:PER_ROW], PER_ROW)) for each in (clean, poisoned))
        images = zip(as_pixels(before), as_pixels(raw), labels.tolist(), true.tolist(), strict=True)
        for column, (bare, pixels, label, own) in enumerate(images):
            changed = label != own
            caption = f"{classes[label]} (is {classes[own]})" if changed else classes[label]
            tile(panel, row, column, pixels, caption, ORANGE if changed else GREEN)
            outline(panel, pixels, bare, panel.images[-1])
    name_rows(panel, list(shown))
    figure.suptitle(subject, fontsize=11)
    figure.supxlabel("above each image the label that the network learns; orange: changed by the poison", fontsize=8)
    return figure
