"""The query interface: what it counts, hides, rounds and refuses."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.extraction.victim import CHUNK, Answer, QueriesSpent, Victim


class Brightness(nn.Module):
    """Logits (0, 3 · mean pixel, 1), so that every answer can be worked out by hand."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(mean), 3 * mean, torch.ones_like(mean)], 1)


def victim(returns: Answer = Answer.logits, round_digits: int | None = None, limit: int | None = None) -> Victim:
    return Victim(
        Brightness(), (1, 2, 2), 3,
        device=torch.device("cpu"), returns=returns, round_digits=round_digits, limit=limit,
    )  # fmt: skip


X = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)


def test_answers_are_the_network_s() -> None:
    asked = victim()
    torch.testing.assert_close(asked.logits(X), torch.tensor([[0, 0, 1], [0, 1.5, 1], [0, 3.0, 1]]))
    torch.testing.assert_close(asked.probabilities(X), Brightness()(X).softmax(1))
    assert asked.labels(X).tolist() == [2, 1, 1]


def test_every_input_is_one_query_however_it_is_batched() -> None:
    asked = victim()
    asked.logits(X)
    asked.labels(X[:1])
    asked.probabilities(X[:1].expand(2 * CHUNK + 1, 1, 2, 2))
    assert asked.queries == 3 + 1 + 2 * CHUNK + 1


def test_what_is_over_the_limit_is_not_answered_and_not_counted() -> None:
    asked = victim(limit=4)
    asked.labels(X)
    with pytest.raises(QueriesSpent, match=r"3 \+ 3 .* than the 4"):
        asked.labels(X)
    assert asked.queries == 3
    asked.labels(X[:1])


@pytest.mark.parametrize(("returns", "hidden"), [(Answer.probabilities, ["logits"]),
                                                 (Answer.labels, ["logits", "probabilities"])])  # fmt: skip
def test_what_is_hidden_is_not_told(returns: Answer, hidden: list[str]) -> None:
    asked = victim(returns)
    for name in ("logits", "probabilities", "labels"):
        if name in hidden:
            with pytest.raises(ValueError, match=f"hides its {name}"):
                getattr(asked, name)(X)
        else:
            assert len(getattr(asked, name)(X)) == 3
    assert asked.queries == 3 * (3 - len(hidden))


def test_answers_are_rounded_and_labels_are_not_touched() -> None:
    asked = victim(round_digits=1)
    # softmax of (0, 1.5, 1) is 0.1220, 0.5465, 0.3315
    torch.testing.assert_close(asked.probabilities(X[1:2]), torch.tensor([[0.1, 0.5, 0.3]]))
    torch.testing.assert_close(asked.logits(X[1:2] * 0.96), torch.tensor([[0.0, 1.4, 1.0]]))  # from 1.44
    assert asked.labels(X[1:2]).tolist() == [1]


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_queries_outside_the_range_of_pixels_are_refused(bad: float) -> None:
    asked = victim()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        asked.logits(torch.full((1, 1, 2, 2), bad))
    assert asked.queries == 0
