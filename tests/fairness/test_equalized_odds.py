"""Equalized odds by hand and against fairlearn."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fairness.peers import Scores
from trustml_cli.fairness.equalized_odds import (
    Rule,
    best_point,
    chances,
    decided,
    equalized_odds_rules,
    roc_hull,
)


def test_a_hull_worked_out_by_hand() -> None:
    # the ROC curve goes (0, 1/2), (1/2, 1/2), (1/2, 1), (1, 1); (1/2, 1/2) lies below the line from (0, 1/2)
    hull = roc_hull(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([1, 0, 1, 0]))
    assert hull[:, :2].tolist() == [[0, 0.5], [0.5, 1], [1, 1]]
    assert hull[:2, 2].tolist() == [3.5, 1.5]
    assert hull[2, 2] < 1
    tied = roc_hull(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1, 0, 0]))  # nothing between the tied two
    assert tied[:, :2].tolist() == [[0, 0], [0.5, 1], [1, 1]]
    assert tied[0, 2] > 1


def test_the_best_point_is_where_hulls_cross() -> None:
    # one group reaches (0, 0.6) and (1, 1), the other (0.2, 0.9), which is the line 4.5·x up to there: at x = 0.6 / 4.1
    one, other = np.array([[0, 0.6], [1, 1]]), np.array([[0, 0], [0.2, 0.9], [1, 1]])
    assert best_point([one, other], 100, 100) == pytest.approx((0.6 / 4.1, 4.5 * 0.6 / 4.1))
    assert best_point([one, other], 1, 1000) == (0, 0)  # hardly anybody is positive: select nobody
    assert best_point([one, other], 1000, 1) == (1, 1)


def people(groups: int, seed: int, ties: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The more, the later the group, and the worse the score tells them."""
    random = torch.Generator().manual_seed(seed)
    group = torch.randint(groups, (900,), generator=random)
    labels = (torch.rand(900, generator=random) < 0.25 + 0.1 * group).long()
    scores = torch.randn(900, generator=random).double() + labels * (1.8 - 0.5 * group) + 0.3 * group
    scores = scores.sigmoid()
    return ((scores * 20).round() / 20 if ties else scores), labels, group


def rates(chance: Tensor, labels: Tensor, group: Tensor) -> list[list[float]]:
    """Mean chance of each group, for each label."""
    return [
        [chance[(group == number) & (labels == truth)].mean().item() for number in torch.unique(group).tolist()]
        for truth in (0, 1)
    ]


@pytest.mark.parametrize(("groups", "ties"), [(2, False), (2, True), (4, False)])
def test_groups_have_equal_odds_on_average_over_the_draws(groups: int, ties: bool) -> None:
    scores, labels, group = people(groups, seed=groups, ties=ties)
    chance = chances(scores, group, equalized_odds_rules(scores, labels, group))
    for each in rates(chance, labels, group):
        assert each == pytest.approx([each[0]] * groups, abs=1e-12)
    false, true = (each[0] for each in rates(chance, labels, group))
    assert 0 < false < true < 1
    assert ((chance > 0) & (chance < 1)).any()  # without a draw, they could not be equal


def test_decisions_are_drawn_by_their_chances() -> None:
    rule = Rule(first=0.5, second=-0.5, share=0.25, ignored=0.2, rate=0.7)
    scores = torch.tensor([1.0, 0.0, -1.0]).double()
    assert rule.chances(scores).tolist() == pytest.approx([0.8 + 0.14, 0.8 * 0.25 + 0.14, 0.14])
    many, group = scores.repeat(4000), torch.zeros(12000).long()
    selected = decided(many, group, {0: rule}, torch.Generator().manual_seed(0)).double().view(4000, 3).mean(0)
    assert selected.tolist() == pytest.approx([0.94, 0.34, 0.14], abs=0.025)
    again = decided(many, group, {0: rule}, torch.Generator().manual_seed(1))
    assert not torch.equal(again, decided(many, group, {0: rule}, torch.Generator().manual_seed(0)))
    assert not decided(scores, torch.tensor([3, 3, 3]), {0: rule}, torch.Generator()).any()


def test_a_group_with_one_label_alone_has_no_odds() -> None:
    with pytest.raises(ValueError, match="group 5 has rows of one label alone"):
        equalized_odds_rules(torch.rand(4), torch.tensor([0, 1, 1, 1]), torch.tensor([2, 2, 5, 5]))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("groups", [2, 3])
def test_fairlearn_finds_the_same_rule_up_to_its_grid(groups: int) -> None:
    postprocessing = pytest.importorskip("fairlearn.postprocessing")
    scores, labels, group = people(groups, seed=groups)
    peer = postprocessing.ThresholdOptimizer(
        estimator=Scores(), constraints="equalized_odds", prefit=True, predict_method="predict_proba", grid_size=2000
    )
    peer.fit(scores.numpy()[:, None], labels.numpy(), sensitive_features=group.numpy())
    theirs = torch.from_numpy(peer._pmf_predict(scores.numpy()[:, None], sensitive_features=group.numpy())[:, 1])
    ours = chances(scores, group, equalized_odds_rules(scores, labels, group))
    right = [(chance * labels + (1 - chance) * (1 - labels)).mean().item() for chance in (ours, theirs)]
    assert right[0] >= right[1] - 1e-9  # they try a grid of rates, we all that can be best
    assert right[0] == pytest.approx(right[1], abs=5e-4)
    assert (ours - theirs).abs().mean() < 0.01
