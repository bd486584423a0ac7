"""What the plots of task=detect_backdoor show."""

import pytest
import torch

from tests.helpers import points, texts, whiskers
from trustml_cli.backdoor_detection.suspicion import Finding
from trustml_cli.plots.detect_backdoor import (
    Inspected,
    auroc_over_strength,
    latent_maps,
    recovered_masks,
    score_panels,
)


def inspected(kind: str, strength: float, auroc: float = 0.9) -> Inspected:
    """Twelve images, of which the first three carry the trigger of a poisoned network; the last two are of no crowd."""
    masks = torch.zeros(3, 4, 4)
    masks[0, 3, 3], masks[1, :2], masks[2, 2:] = 1, 0.5, 1
    scores = torch.arange(12.0).flip(0).double()
    triggered = (torch.arange(12) < 3) & (kind == "poisoned")
    findings = {
        "spectral": Finding(scores, scores > 8),
        "neural_cleanse": Finding(scores, scores > 8, 2.5, masks, masks[:, None]),
    }
    latents = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).double()
    latents[:3, 0] += 20
    intervals = dict.fromkeys(findings if kind == "poisoned" else (), (auroc, auroc - 0.2, auroc + 0.05))
    return Inspected(kind, strength, findings, triggered, torch.arange(12) < 10, latents, intervals)


NETWORKS = [inspected("poisoned", 0), inspected("poisoned", 0.3), inspected("clean", 0)]


def test_scores_of_every_network_and_detector_have_a_panel() -> None:
    figure = score_panels(NETWORKS, "cnn on digits")
    assert len(figure.axes) == 6
    words = texts(figure)
    assert words.count("AUROC 0.900") == 4  # a network that was never poisoned has none
    assert words.count("anomaly index 2.50") == 3
    for title in ("poisoned", "poisoned, λ = 0.3", "never poisoned"):
        assert any(axes.get_ylabel().startswith(f"{title}\n") for axes in figure.axes)
    shares = [sum(top for top in container.get_path().vertices[:, 1]) for container in figure.axes[0].patches]
    assert len(shares) == 2  # clean images, and those with the trigger


def test_latents_show_the_crowd_apart() -> None:
    figure = latent_maps(NETWORKS, "cnn on digits")
    clean, triggered = figure.axes[0].collections
    assert (len(clean.get_offsets()), len(triggered.get_offsets())) == (7, 3)
    first = [abs(part.get_offsets()[:, 0].mean()) for part in (clean, triggered)]
    assert abs(first[0] - first[1]) > 5
    assert len(figure.axes[2].collections) == 1


def test_masks_stand_beside_the_trigger_with_their_sizes() -> None:
    change = torch.zeros(4, 4)
    change[3, 3] = 0.4
    found = {one.title: one.findings["neural_cleanse"] for one in NETWORKS}
    figure = recovered_masks(found, "neural_cleanse", ("a", "b", "c"), "cnn on digits", change)
    (axes,) = figure.axes
    assert len(axes.images) == 3 * 4
    assert axes.images[0].get_array()[3, 3] == 1  # the largest change is white
    words = texts(figure)
    assert [words.count(caption) for caption in ("a: 1.0", "b: 4.0", "c: 8.0", "the trigger", "index 2.50")] == [3] * 5
    assert [text.get_color() != "black" for text in axes.texts[:4]] == [False, True, False, False]


def test_auroc_over_strength_is_in_the_order_of_strengths_with_intervals() -> None:
    figure = auroc_over_strength([inspected("poisoned", 1, 0.5), inspected("poisoned", 0, 0.9)], "cnn on digits")
    (axes,) = figure.axes
    assert points(axes, 0) == [(0, 0.9), (1, 0.5)]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1"]
    assert whiskers(axes, 0)[0] == pytest.approx((0.7, 0.95))
