"""A network's answers on a whole split."""

from math import e, log

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import CPU
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.hardware import Hardware, Precision
from trustml_cli.training.predict import BATCH, Answers, batch_size, predict


class Watched(nn.Module):
    """Answers with the mean brightness and its negative; remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.sizes: list[int] = []
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        self.modes.add(self.training)
        mean = x.flatten(1) @ self.weight.expand(x[0].numel(), 1)
        return torch.cat([mean, -mean], dim=1)


def test_answers_are_worked_out_from_logits_and_labels() -> None:
    answers = Answers(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, log(3)]]), torch.tensor([0, 1, 1]))
    assert answers.predicted.tolist() == [0, 0, 1]
    assert answers.correct.tolist() == [True, False, True]
    assert answers.accuracy == pytest.approx(2 / 3)
    assert answers.confidence.tolist() == pytest.approx([0.5, e / (e + 1), 0.75])
    assert answers.loss == pytest.approx((log(2) + log(e + 1) + log(4 / 3)) / 3)


def test_an_answer_of_nan_is_not_right() -> None:
    answers = Answers(torch.tensor([[torch.nan, torch.nan], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert answers.predicted.tolist() == [-1, 0]
    assert answers.correct.tolist() == [False, True]


def test_all_examples_are_answered_in_the_order_of_the_split() -> None:
    images = torch.randint(0, 256, (2 * BATCH + 3, 1, 2, 2), dtype=torch.uint8)
    labels = torch.arange(len(images)) % 2
    network = Watched()
    answers = predict(network, InMemory(images, labels), CPU)
    assert network.sizes == [BATCH, BATCH, 3]
    brightness = images.flatten(1).float().sum(1) / 255
    torch.testing.assert_close(answers.logits, torch.stack([brightness, -brightness], dim=1))
    assert torch.equal(answers.labels, labels)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_an_example_without_a_finite_logit_is_no_answer(wrong: float) -> None:
    class Own(nn.Module):
        """Logits that are not finite for white images, and −∞ for a class that others cannot have."""

        def forward(self, x: Tensor) -> Tensor:
            mean = x.flatten(1).mean(1)
            return torch.stack([mean.where(mean < 1, wrong), mean.new_full(mean.shape, -torch.inf)], dim=1)

    images = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)
    assert predict(Own(), InMemory(images, torch.zeros(5)), CPU).accuracy == 1
    images[3:] = 255
    with pytest.raises(RunFailed, match="no finite logit for 2 of 5 examples, first for number 3;"):
        predict(Own(), InMemory(images, torch.zeros(5)), CPU)


@pytest.mark.parametrize(
    ("device", "shape", "images"),
    [("cpu", (1, 28, 28), BATCH), ("cuda", (3, 32, 32), 1953), ("cuda", (3, 224, 224), BATCH), ("mps", (14,), 428_571)],
)
def test_a_gpu_is_given_more_of_small_images(device: str, shape: tuple[int, ...], images: int) -> None:
    split = InMemory(torch.empty(1, *shape), torch.zeros(1))
    assert batch_size(split, torch.device(device)) == images


def test_the_network_answers_in_eval_mode_and_without_gradients(tiny_data: Dataset) -> None:
    network = Watched().train()
    answers = predict(network, tiny_data.test, CPU)
    assert network.modes == {False}
    assert not answers.logits.requires_grad


def test_lower_precision_answers_in_float32_too(tiny_data: Dataset) -> None:
    exact = predict(Watched(), tiny_data.test, CPU).logits
    rounded = predict(Watched(), tiny_data.test, Hardware(torch.device("cpu"), Precision.bf16)).logits
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)
