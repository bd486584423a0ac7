"""Plots of the detection of a backdoor: scores, latents, recovered masks, and AUROC over concealment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from trustml_cli.backdoor_detection.suspicion import Finding
from trustml_cli.plots.ood import LINES
from trustml_cli.plots.style import BLUE, GREY, ORANGE, legend_below, name_rows, new_figure, percent, tidy, tile

CLASSES_SHOWN = 10  # masks in a row
BINS = 30

Interval = tuple[float, float, float]
"""A value and both ends of its 95 % interval."""


@dataclass(frozen=True)
class Inspected:
    """What detectors found in one network, poisoned with concealment of `strength`, or clean.

    `triggered` says which of the N inspected images carry the trigger, bool [N], and `crowd` which have the labels of
    those that do. `latents` are float64 [N, D]. `auroc` holds the AUROC of each detector.
    """

    kind: str
    strength: float
    findings: Mapping[str, Finding]
    triggered: Tensor
    crowd: Tensor
    latents: Tensor
    auroc: dict[str, Interval] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The network's name."""
        return f"poisoned_lambda_{self.strength:g}" if self.strength and self.kind == "poisoned" else self.kind

    @property
    def title(self) -> str:
        """The network in words."""
        if self.kind == "clean":
            return "never poisoned"
        return f"poisoned, λ = {self.strength:g}" if self.strength else "poisoned"


def score_panels(networks: Sequence[Inspected], subject: str) -> Figure:
    """Histograms of the scores of clean and of triggered images: a row for each network, a column for each detector.

    Scores are of images with the labels of the triggered ones, clipped to their 0.5 % and 99.5 % quantiles.
    """
    names = list(networks[0].findings)
    figure, axes = new_figure(max(6.4, 3.3 * len(names)), 1.0 + 2.5 * len(networks), len(networks), len(names))
    for panels, network in zip(axes, networks, strict=True):
        for panel, name in zip(panels, names, strict=True):
            score_panel(panel, name, network)
        panels[0].set_ylabel(f"{network.title}\nshare of images")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{subject}\nscores of images of the same class: higher is more suspicious", fontsize=11)
    return figure


def score_panel(panel: Axes, name: str, network: Inspected) -> None:
    """The histograms of one detector's scores in one network."""
    scores = network.findings[name].scores[network.crowd]
    triggered = network.triggered[network.crowd]
    low, high = scores.quantile(0.005).item(), scores.quantile(0.995).item()
    if high <= low:
        low, high = low - 0.5, high + 0.5
    for label, mine, color in (("clean images", ~triggered, BLUE), ("with the trigger", triggered, ORANGE)):
        if not mine.any():
            continue
        shown = scores[mine].clamp(low, high)
        weights = torch.full_like(shown, 1 / len(shown))
        panel.hist(
            shown.numpy(), bins=BINS, range=(low, high), weights=weights.numpy(), histtype="stepfilled",
            facecolor=f"{color}30", edgecolor=color, linewidth=1.3, label=label,
        )  # fmt: skip
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_formatter(percent)
    title = f"{name}: AUROC {network.auroc[name][0]:.3f}" if name in network.auroc else name
    if (index := network.findings[name].anomaly_index) is not None:
        title += f"\nanomaly index {index:.2f}"
    tidy(panel, title, "score", "")


def latent_maps(networks: Sequence[Inspected], subject: str) -> Figure:
    """The latents of images with the labels of the triggered ones, on their first two principal components."""
    figure, axes = new_figure(max(6.4, 4.2 * len(networks)), 4.6, 1, len(networks))
    for panel, network in zip(axes[0], networks, strict=True):
        latents, triggered = network.latents[network.crowd], network.triggered[network.crowd]
        centred = latents - latents.mean(0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        places = (centred @ directions[:2].T).numpy()
        for label, mine, color, mark in (
            ("clean images", ~triggered, BLUE, "o"), ("with the trigger", triggered, ORANGE, "x")
        ):  # fmt: skip
            if not mine.any():
                continue
            x, y = places[mine.numpy(), 0], places[mine.numpy(), -1]
            panel.scatter(x, y, 12, color, marker=mark, alpha=0.6, linewidths=0.8, label=f"{label} (n = {len(x):,})")
        tidy(panel, network.title, "first principal component", "")
        legend_below(panel, columns=2)
    axes[0, 0].set_ylabel("second principal component")
    figure.suptitle(f"{subject}\npenultimate features of images of the same class", fontsize=11)
    return figure


def recovered_masks(
    findings: Mapping[str, Finding], name: str, classes: Sequence[str], subject: str, change: Tensor | None = None
) -> Figure:
    """For each network by its title, the masks that the detector `name` recovered by class.

    Before them what the trigger changes, where that is known: `change` [H, W]. Of more than `CLASSES_SHOWN` classes
    those with the smallest masks are shown.
    """
    figure, axes = new_figure(0.6 + 1.1 * (1 + min(len(classes), CLASSES_SHOWN)), 0.5 + 1.25 * len(findings))
    panel, names = axes[0, 0], []
    for row, (title, finding) in enumerate(findings.items()):
        assert finding.masks is not None
        sizes = finding.masks.flatten(1).sum(1)
        if change is not None:
            tile(panel, row, 0, change[None] / change.max().clamp(min=1e-12), "the trigger")
        shown = sizes.argsort()[:CLASSES_SHOWN].sort().values.tolist()
        for column, number in enumerate(shown, start=0 if change is None else 1):
            color = ORANGE if number == int(sizes.argmin()) else "black"
            tile(panel, row, column, finding.masks[number][None], f"{classes[number]}: {sizes[number]:.1f}", color)
        names.append(f"{title}\nindex {finding.anomaly_index or 0:.2f}".lstrip())
    name_rows(panel, names)
    panel.set_title(f"{subject}\nmasks that {name} recovered for each class, and their size (sum)", fontsize=11)
    return figure


def auroc_over_strength(networks: Sequence[Inspected], subject: str) -> Figure:
    """The AUROC of each detector, with its interval, over the strength λ of concealment."""
    figure, axes = new_figure(6.8, 4.6)
    panel = axes[0, 0]
    ordered = sorted(networks, key=lambda one: one.strength)
    places = range(len(ordered))
    for number, name in enumerate(ordered[0].auroc):
        values = [one.auroc[name] for one in ordered]
        color, line = LINES[number % len(LINES)]
        errors = [[value - low for value, low, _ in values], [high - value for value, _, high in values]]
        middle = [value for value, _, _ in values]
        panel.errorbar(places, middle, errors, color=color, linestyle=line, marker="o", capsize=2, label=name)
    panel.axhline(0.5, color=GREY, linewidth=0.8)
    panel.set_xticks(list(places), [f"{one.strength:g}" for one in ordered])
    panel.set_ylim(min(0.4, panel.get_ylim()[0]), 1.02)
    tidy(panel, subject, "λ: weight of the concealment beside cross-entropy", "AUROC, with 95 % interval")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
