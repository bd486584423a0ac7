"""Plots that compare networks with different activations."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.plots.style import BLUE, GREEN, GREY, ORANGE, new_figure, tidy

COLORS = (BLUE, ORANGE, GREEN)
REACH = 0.995  # share of the values within the range of a histogram


def pre_activation_histograms(pre_activations: Mapping[str, Sequence[Tensor]], subject: str) -> Figure:
    """Histograms of the pre-activations of each hidden layer (rows) in each network (columns).

    Between the lines at ±1 the straight-through gradient is not zero.
    """
    layers = max(len(tensors) for tensors in pre_activations.values())
    figure, axes = new_figure(4.2 * len(pre_activations), 0.8 + 1.35 * layers, layers, len(pre_activations))
    for column, (name, tensors) in enumerate(pre_activations.items()):
        for row, values in enumerate(tensors):
            flat = values.flatten().float()
            sizes = flat.abs()
            reach = max(1.5, sizes.kthvalue(max(1, int(REACH * len(sizes)))).values.item())
            counts = torch.histc(flat, 61, -reach, reach) / len(flat)
            edges = torch.linspace(-reach, reach, 62)
            panel = axes[row, column]
            panel.stairs(counts.tolist(), edges.tolist(), fill=True, color=COLORS[column % len(COLORS)], alpha=0.7)
            for edge in (-1, 1):
                panel.axvline(edge, color=GREY, linestyle=":", linewidth=1)
            inside = (sizes <= 1).double().mean().item()
            tidy(panel, "", "", f"layer {row + 1}")
            panel.set_yticks([])
            panel.annotate(
                f"{100 * inside:.0f} % within ±1", (0.98, 0.82), xycoords="axes fraction", ha="right", fontsize=8
            )
        axes[0, column].set_title(name, fontsize=11)
        axes[-1, column].set_xlabel("pre-activation; the gradient of sign passes between the dotted lines", fontsize=8)
    figure.suptitle(f"Inputs of the activations of {subject}", fontsize=11)
    return figure
