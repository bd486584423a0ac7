"""What reconstructions are compared with: images that are counted by hand, and a judge that is another network."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.tasks.reconstruction import Likeness, Scene, rmse

CPU = torch.device("cpu")


class Always(nn.Module):
    """A network that predicts one class."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.logits = 2 * torch.eye(3)[number]

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), 3)


def scene() -> Scene:
    """Training images of one bright pixel each, of the classes 0, 0 and 1; test images are grey."""
    bright = (255 * torch.eye(4)[:3].view(3, 1, 2, 2)).to(torch.uint8)
    grey = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    data = Dataset(InMemory(bright, torch.tensor([0, 0, 1])), InMemory(grey, torch.tensor([0, 1, 2])), ("a", "b", "c"),
                   "made up", "made up")  # fmt: skip
    return Scene.of(Always(0), Always(1), data, pool=10, seed=0, device=CPU)


def test_the_judge_recognises_and_the_attacked_network_is_confident() -> None:
    confidence, recognised = scene().judged(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    assert recognised.tolist() == [False, True]
    assert confidence.tolist() == pytest.approx(torch.tensor([2.0, 0, 0]).softmax(0)[:2].tolist())


def test_nearest_images_and_averages_are_counted_by_hand() -> None:
    made = scene()
    assert made.average[0].flatten().tolist() == [0.5, 0.5, 0, 0]
    assert made.average[2].sum() == 0
    x = made.average[:1].clone()
    like = Likeness.of(x, torch.tensor([0]), made)
    assert like.train.item() == pytest.approx((0.25 * 2 / 4) ** 0.5)
    assert like.test.item() == pytest.approx(((0.3**2 + 0.2**2) / 2) ** 0.5, rel=1e-5)
    assert like.with_average.item() == pytest.approx(1)
    assert like.with_train.item() == pytest.approx(1 / 3**0.5, rel=1e-5)
    assert like.with_test.item() == pytest.approx(0, abs=1e-5)
    assert rmse(x, torch.zeros_like(x)).item() == pytest.approx((0.25 * 2 / 4) ** 0.5)
    assert len(made.of_class(0, 5, training=True)) == 2
    assert len(made.of_class(0, 5, training=False)) == 1
