"""Plots of how answers change with shifts."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from trustml_cli.plots.lines import Line, figure_of_lines, shares
from trustml_cli.plots.style import GREEN, ORANGE, name_rows, new_figure, percent, tile

NUMBERED = 7  # largest distance whose map has numbers
CURVES = {
    "accuracy": "accuracy at this distance",
    "agreement": "same answer as without a shift",
    "consistency": "two random shifts up to it agree",
    "share_invariant": "one answer under all shifts up to it",
}


def shift_map(accuracy: Tensor, distance: int, subject: str) -> Figure:
    """The accuracy under each offset, [offsets] from the top left."""
    side = 2 * distance + 1
    size = min(9.0, 2.2 + 0.45 * side)
    figure, axes = new_figure(size + 0.8, size)
    panel, values = axes[0, 0], accuracy.view(side, side)
    span = (-distance - 0.5, distance + 0.5, distance + 0.5, -distance - 0.5)
    image = panel.imshow(values.numpy(), cmap="viridis", vmin=0, vmax=1, extent=span)
    figure.colorbar(image, ax=panel, format=FuncFormatter(percent), label="accuracy", shrink=0.8)
    if distance <= NUMBERED:
        for row in range(side):
            for column in range(side):
                value = float(values[row, column])
                color = "black" if value > 0.6 else "white"
                place = (column - distance, row - distance)
                panel.text(*place, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    panel.set_title(f"{subject}:\naccuracy in percent over the shift", fontsize=10)
    panel.set_xlabel("pixels to the right")
    panel.set_ylabel("pixels down")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return figure


def shift_curves(rows: Sequence[Mapping[str, Any]], subject: str) -> Figure:
    """Accuracy, agreement, consistency and invariance over the distance, with intervals, from rows of metrics.csv."""
    lines = {label: Line.of_rows(rows, "distance", name) for name, label in CURVES.items()}

    def finish(panel: Axes) -> None:
        shares(panel)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))

    title = f"{subject}, n = {rows[0]['accuracy_n']:,}"
    return figure_of_lines(lines, title, "shift in pixels", "share, with 95 % interval", finish)


def changed_answers(
    before: Tensor,
    after: Tensor,
    right: Sequence[str],
    wrong: Sequence[str],
    moves: Sequence[tuple[int, int]],
    subject: str,
) -> Figure:
    """Images [M, C, H, W] above their smallest shift, by `moves` (down, right), that changes the answer."""
    figure, axes = new_figure(max(5.0, 0.6 + 1.15 * len(before)), 3.4)
    panel = axes[0, 0]
    for column, (image, moved, answer, other, move) in enumerate(zip(before, after, right, wrong, moves, strict=True)):
        tile(panel, 0, column, image, answer, GREEN)
        tile(panel, 1, column, moved, f"{other} ({words(*move)})", ORANGE)
    name_rows(panel, ["right", "shifted"])
    panel.set_title(f"{subject}: the smallest shifts that change the answer", fontsize=11)
    return figure


def words(down: int, right: int) -> str:
    """A shift as arrows with pixels, such as '→1 ↓2'."""
    across = f"{'→' if right > 0 else '←'}{abs(right)}" if right else ""
    along = f"{'↓' if down > 0 else '↑'}{abs(down)}" if down else ""
    return f"{across} {along}".strip()
