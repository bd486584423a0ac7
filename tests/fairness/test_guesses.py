"""What a score gives away by other means than a network."""

import pytest
import torch

from trustml_cli.fairness.guesses import guesses_by_boosting, guesses_by_score
from trustml_cli.fairness.measure import Scored, adversary_aucs


def scored(seed: int, groups: torch.Tensor | None = None) -> Scored:
    """Two groups: the first attribute shows in the size of the score, the second in its sign."""
    random = torch.Generator().manual_seed(seed)
    odds = 2 * torch.randn(600, generator=random).double()
    first = (odds.abs() > 1.3).long() if groups is None else groups
    return Scored(odds, torch.zeros(600).long(), torch.stack([first, (odds < 0).long()], 1))


def test_the_score_finds_what_rises_or_falls_with_it_and_boosting_the_rest() -> None:
    known, asked = scored(0), scored(1)
    by_score = adversary_aucs(guesses_by_score(known, asked, [2, 2]), asked.sensitive)
    by_boosting = adversary_aucs(guesses_by_boosting(known, asked, [2, 2], seed=0), asked.sensitive)
    assert by_score == [pytest.approx(0.5, abs=0.06), 1.0]
    assert min(by_boosting) > 0.97


def test_the_direction_is_not_learned_from_the_rows_that_are_asked_about() -> None:
    known = scored(0)
    turned = Scored(known.odds, known.labels, 1 - known.sensitive)
    assert adversary_aucs(guesses_by_score(known, turned, [2, 2]), turned.sensitive)[1] == 0


def test_groups_that_were_never_seen_are_thought_impossible() -> None:
    known = scored(0, groups=torch.arange(600) % 2 * 2)
    (first, _) = guesses_by_boosting(known, scored(1), [4, 2], seed=0)
    assert first.shape == (600, 4)
    assert first[:, [1, 3]].eq(0).all()
    torch.testing.assert_close(first.sum(1), torch.ones(600).double())
    alone = scored(0, groups=torch.zeros(600).long())
    assert guesses_by_boosting(alone, scored(1), [4, 2], seed=0)[0].eq(0).all()
