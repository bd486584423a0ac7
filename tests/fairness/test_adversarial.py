"""The adversary against what can be known at best, and the game on people whose merit and proxy are known."""

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.fairness.adversarial import PATIENCE, AdversarialDebiasing, Adversary, descend, log_odds
from trustml_cli.fairness.constraint import Constraint
from trustml_cli.fairness.measure import Scored, adversary_aucs
from trustml_cli.models.mean_logits import MeanLogits

pytestmark = pytest.mark.e2e  # trains

GAME: dict[str, Any] = {
    "strength": [10.0, 10.0], "rounds": 100, "batch_size": 500, "lr": 0.02, "weight_decay": 0.0,
    "adversary_batch_size": 500, "adversary_lr": 0.01, "averaged": 0.0,
}  # fmt: skip


def entropy(share: float) -> float:
    return float(functional.binary_cross_entropy(torch.tensor(share), torch.tensor(share)))


def test_an_adversary_learns_all_there_is_to_know_and_no_more() -> None:
    # the score takes two values; the first attribute shows in it with 0.9 against 0.2, the second not at all
    odds = torch.tensor([-2.0, 2.0]).repeat_interleave(1000)
    first = torch.cat([torch.arange(1000) < 200, torch.arange(1000) < 900]).long()
    second = torch.arange(2000) % 2
    sensitive = torch.stack([first, second], 1)
    torch.manual_seed(0)
    adversary = Adversary([32, 32, 32], [2, 2])
    AdversarialDebiasing(**GAME).pretrain(adversary, odds, first, sensitive, 75)
    best = [(entropy(0.2) + entropy(0.9)) / 2, entropy(0.5)]
    assert adversary.losses(odds, first, sensitive).tolist() == pytest.approx(best, abs=0.002)
    # of 1100 · 900 pairs: right where only one has the score 2, even where both or none have
    expected = (900 * 800 + 0.5 * (900 * 100 + 200 * 800)) / (1100 * 900)
    guesses = [guess.softmax(1) for guess in adversary(odds, first)]
    assert adversary_aucs(guesses, sensitive) == pytest.approx([expected, 0.5], abs=0.02)


def test_an_adversary_that_converges_does_not_stop_half_way() -> None:
    # the group shows in the middle of the scores only: a few epochs find nothing, all that can be known takes more
    odds = torch.linspace(-3, 3, 600)
    sensitive = ((odds.abs() < 1) ^ (torch.arange(600) % 5 == 0)).long()[:, None]
    game = AdversarialDebiasing(**{**GAME, "adversary_batch_size": 600})
    found = {}
    for name in ("short", "long"):
        torch.manual_seed(0)
        adversary = Adversary([16, 16], [2])
        if name == "short":
            game.pretrain(adversary, odds, sensitive[:, 0], sensitive, 5)
        else:
            epochs = game.converge(adversary, odds, sensitive[:, 0], sensitive, 2000)
            assert PATIENCE < epochs < 2000
        found[name] = adversary.losses(odds, sensitive[:, 0], sensitive).item()
    assert found["short"] > 0.6
    assert found["long"] == pytest.approx(entropy(0.2), abs=0.03)


def test_attributes_of_several_groups_have_guesses_of_their_own() -> None:
    adversary = Adversary([8], [2, 5])
    odds, labels = torch.zeros(7), torch.zeros(7).long()
    assert [list(guess.shape) for guess in adversary(odds, labels)] == [[7, 2], [7, 5]]
    assert adversary.losses(odds, labels, torch.zeros(7, 2).long()).shape == (2,)


@pytest.mark.parametrize("constraint", Constraint)
def test_an_adversary_sees_what_the_goal_is_about(constraint: Constraint) -> None:
    # 500 rows of each label and score; the share of group 1 in each
    shares = {(0, -1.0): 0.5, (0, 1.0): 0.1, (1, -1.0): 0.7, (1, 1.0): 0.9}
    labels = torch.cat([torch.full((500,), label) for label, _ in shares])
    odds = torch.cat([torch.full((500,), score) for _, score in shares])
    group = torch.cat([(torch.arange(500) < 500 * share).long() for share in shares.values()])[:, None]
    torch.manual_seed(0)
    adversary = Adversary([16, 16], [2], constraint)
    AdversarialDebiasing(**GAME).pretrain(adversary, odds, labels, group, 75)
    seen = {
        Constraint.demographic_parity: [0.6, 0.5],
        Constraint.equalized_odds: list(shares.values()),
        Constraint.equal_opportunity: [0.7, 0.9],
    }[constraint]
    best = sum(map(entropy, seen)) / len(seen)
    assert adversary.losses(odds, labels, group).item() == pytest.approx(best, abs=0.005)
    assert adversary.losses(odds[:0], labels[:0], group[:0]).tolist() == [0]


def test_probabilities_of_the_groups_are_learnt_as_the_groups_are() -> None:
    torch.manual_seed(0)
    adversary = Adversary([8], [2, 3])
    odds, labels = torch.randn(6), torch.zeros(6).long()
    groups = torch.tensor([[0, 2], [1, 0], [1, 1], [0, 0], [1, 2], [0, 1]])
    certain = torch.cat([functional.one_hot(groups[:, 0], 2), functional.one_hot(groups[:, 1], 3)], 1).float()
    torch.testing.assert_close(adversary.losses(odds, labels, certain), adversary.losses(odds, labels, groups))
    likely = torch.tensor([0.2, 0.8, 0.5, 0.1, 0.4]).expand(6, 5)
    first, second = (guess.log_softmax(1) for guess in adversary(odds, labels))
    expected = [-(first @ likely[0, :2]).mean(), -(second @ likely[0, 2:]).mean()]
    torch.testing.assert_close(adversary.losses(odds, labels, likely), torch.stack(expected))


def people(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Merit and a proxy of the first group; women of merit are denied half of the time, the second group is random."""
    random = torch.Generator().manual_seed(0)
    merit = torch.randn(n, generator=random)
    woman = (torch.rand(n, generator=random) < 0.5).long()
    proxy = woman + 0.3 * torch.randn(n, generator=random)
    denied = (woman == 1) & (torch.rand(n, generator=random) < 0.7)
    y = ((merit + 0.3 * torch.randn(n, generator=random) > 0) & ~denied).long()
    sensitive = torch.stack([woman, torch.randint(2, (n,), generator=random)], 1)
    return torch.stack([merit, proxy], 1), y, sensitive


@cache
def played(first: float, second: float) -> Scored:
    """What a network says after it was trained and then played against an adversary."""
    x, y, sensitive = people(1000)
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(classifier.parameters(), 0.02)
    for _ in range(100):
        descend(optimizer, functional.cross_entropy(classifier(x), y))
    adversary = Adversary([16, 16], [2, 2])
    game = AdversarialDebiasing(**{**GAME, "strength": [first, second]})
    game.pretrain(adversary, log_odds(classifier(x)).detach(), y, sensitive, 25)
    assert len(list(game.play(classifier, adversary, x, y, sensitive))) == GAME["rounds"]
    with torch.no_grad():
        return Scored(log_odds(classifier(x)).double(), y, sensitive)


def test_the_game_makes_groups_alike_and_a_lambda_of_zero_does_not() -> None:
    unfair, fair = played(0.0, 0.0), played(10.0, 10.0)
    assert unfair.p_rules[0] < 30
    assert fair.p_rules[0] > 75
    assert unfair.accuracy > fair.accuracy > 0.75  # of those who are selected by merit alone, some are denied
    assert unfair.accuracy > 0.85


def test_lambda_holds_for_its_own_attribute() -> None:
    assert played(0.0, 10.0).p_rules[0] < 30
    assert played(10.0, 0.0).p_rules[0] > 75


def test_a_round_is_a_step_of_the_adversary_on_all_rows_and_one_of_the_classifier_against_it() -> None:
    x, y, sensitive = people(50)
    torch.manual_seed(3)
    classifier, adversary = nn.Linear(2, 2), Adversary([4], [2, 2])
    game = AdversarialDebiasing(
        **{**GAME, "strength": [3.0, 0.5], "rounds": 1, "batch_size": 20, "adversary_batch_size": 50}
    )
    ours, theirs = deepcopy(classifier), deepcopy(adversary)
    torch.manual_seed(4)
    ((loss, result),) = game.play(classifier, adversary, x, y, sensitive)
    assert result is classifier

    torch.manual_seed(4)
    torch.randperm(50)
    batch = torch.randint(50, (20,))
    maximize, minimize = torch.optim.Adam(theirs.parameters(), 0.01), torch.optim.Adam(ours.parameters(), 0.02)
    guesses = theirs(ours(x)[:, 1].detach() - ours(x)[:, 0].detach(), y)
    sum(functional.cross_entropy(guess, group) for guess, group in zip(guesses, sensitive.T, strict=True)).backward()
    maximize.step()
    logits = ours(x[batch])
    first, second = theirs(logits[:, 1] - logits[:, 0], y[batch])
    expected = functional.cross_entropy(logits, y[batch])
    expected = expected - 3.0 * functional.cross_entropy(first, sensitive[batch, 0])
    expected = expected - 0.5 * functional.cross_entropy(second, sensitive[batch, 1])
    minimize.zero_grad()
    expected.backward()
    minimize.step()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(classifier.weight, ours.weight)
    torch.testing.assert_close(adversary.body[0].weight, theirs.body[0].weight)


def test_the_weights_of_the_last_rounds_are_averaged() -> None:
    x, y, sensitive = people(50)
    torch.manual_seed(3)
    classifier, adversary = nn.Linear(2, 2), Adversary([4], [2, 2])
    game = AdversarialDebiasing(**{**GAME, "rounds": 6, "batch_size": 20, "averaged": 0.5})
    weights, results = [], []
    for _, result in game.play(classifier, adversary, x, y, sensitive):
        weights.append(classifier.weight.detach().clone())
        results.append(result.weight.detach().clone())
    for own, result in zip(weights[:3], results[:3], strict=True):
        assert torch.equal(own, result)
    torch.testing.assert_close(results[4], (weights[3] + weights[4]) / 2)
    torch.testing.assert_close(results[5], (weights[3] + weights[4] + weights[5]) / 3)
    assert (results[5] - weights[5]).abs().max() > 1e-3


def test_the_mean_of_classifiers_is_of_their_log_odds() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = (log_odds(one(x)) + log_odds(other(x))) / 2
    torch.testing.assert_close(log_odds(MeanLogits([one, other])(x)), expected)
