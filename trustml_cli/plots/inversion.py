"""Plots of model inversion: reconstructions beside the images that they may resemble."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.style import name_rows, new_figure, tile


def reconstructions(
    rows: Mapping[str, Tensor], names: Sequence[str], notes: Mapping[str, Sequence[str]], subject: str
) -> Figure:
    """Rows of images [M, C, H, W] by name, one column for each class in `names`; `notes` are captions of some rows."""
    figure, axes = new_figure(max(5.0, 1.4 + 0.85 * len(names)), 0.7 + 1.05 * len(rows))
    panel = axes[0, 0]
    for column, name in enumerate(names):  # by columns, as `name_rows` expects
        for place, (row, images) in enumerate(rows.items()):
            caption = notes[row][column] if row in notes else name if place == 0 else ""
            tile(panel, place, column, images[column], caption)
    name_rows(panel, list(rows))
    panel.set_title(subject, fontsize=11)
    return figure
