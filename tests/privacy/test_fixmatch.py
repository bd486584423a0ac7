"""FixMatch: what it learns labels from, and what it does to images."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.privacy import fixmatch
from trustml_cli.privacy.fixmatch import RATIO, FixMatch, cut_out, warp


def taken(x: Tensor, y: Tensor, scale: float) -> tuple[float, Tensor]:
    """Loss and weight gradient of a step with a linear network whose logits are `scale` times two pixels."""
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = scale * torch.eye(4)[:2]
    losses = []

    def step(closure: Any) -> tuple[Tensor, Tensor]:
        loss, logits = closure()
        loss.backward()
        losses.append(loss.item())
        return loss.detach(), logits.detach()

    state: Any = SimpleNamespace(network=nn.Sequential(nn.Flatten(), layer), step=step, autocast=nullcontext,
                                 cross_entropy=functional.cross_entropy)  # fmt: skip
    FixMatch(labelled=1)(state, x, y)
    assert layer.weight.grad is not None
    return losses[0], layer.weight.grad


def test_confident_predictions_are_labels_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixmatch, "warp", lambda x, strength: x)
    monkeypatch.setattr(fixmatch, "cut_out", lambda x: x.flip(3))  # the strong view shows the other class
    x = torch.zeros(1 + RATIO, 1, 2, 2)
    x[:, 0, 0, 0] = 1
    y = torch.tensor([0, *[-1] * RATIO])
    known = functional.cross_entropy(torch.tensor([[4.0, 0.0]]), torch.tensor([0])).item()
    carried = functional.cross_entropy(torch.tensor([[0.0, 4.0]]), torch.tensor([0])).item()
    assert taken(x, y, 4.0)[0] == pytest.approx(known + carried)
    unsure, gradient = taken(x, y, 1.0)  # a confidence of 0.73
    assert unsure == pytest.approx(functional.cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item())
    assert gradient[:, 1].abs().sum() == 0  # nothing is learned from the strong view
    assert taken(x, torch.tensor([0, *[1] * RATIO]), 4.0)[0] == pytest.approx(known + carried)  # labels are not read


def test_a_batch_has_labelled_examples_and_several_times_as_many_of_all() -> None:
    batches = FixMatch(labelled=7).batches(50, 16, 40)
    assert {len(rows) for rows in batches} == {7 * (1 + RATIO)}
    assert max(int(rows[:7].max()) for rows in batches) == 6
    assert len(torch.cat([rows[7:] for rows in batches]).unique()) == 50


def test_images_are_warped_and_cut_each_on_its_own() -> None:
    x = torch.rand(64, 1, 8, 8) * 0.5 + 0.25
    torch.testing.assert_close(warp(x, 0.0), x)
    warped = warp(x[:1].repeat(64, 1, 1, 1), 1.0)
    assert len(warped.flatten(1).unique(dim=0)) == 64
    assert warped.min() >= x.min() - 1e-6
    black = (cut_out(x) == 0).flatten(1).sum(1)
    assert black.min() >= 1
    assert black.max() <= 9
    assert black.float().mean() > 3
