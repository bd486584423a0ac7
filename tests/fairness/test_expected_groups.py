"""Probabilities of the groups, where the shares of the groups are known for every value of the features."""

import torch

from trustml_cli.fairness.expected_groups import expected_groups

X = torch.tensor([-1.0, 1.0]).repeat(2000)[:, None]
FOLD = torch.arange(4000) // 2 % 4


def rows() -> torch.Tensor:
    """Two groups with shares of 0.8 and 0.3 of the second one by the feature, and three that do not depend on it."""
    random = torch.Generator().manual_seed(0)
    share = torch.where(X[:, 0] < 0, 0.8, 0.3)
    first = (torch.rand(4000, generator=random) < share).long()
    return torch.stack([first, torch.randint(3, (4000,), generator=random)], 1)


def test_they_are_the_shares_among_rows_that_are_alike() -> None:
    likely = expected_groups(X, rows(), [2, 3], FOLD)
    for value, share in ((-1, 0.8), (1, 0.3)):
        mean = likely[X[:, 0] == value].mean(0)
        torch.testing.assert_close(mean, torch.tensor([1 - share, share, 1 / 3, 1 / 3, 1 / 3]), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.stack([likely[:, :2].sum(1), likely[:, 2:].sum(1)]), torch.ones(2, 4000))


def test_a_fold_is_predicted_from_the_others_alone() -> None:
    sensitive = rows()
    first = FOLD == 0
    changed = torch.where(first[:, None], 1 - sensitive.clamp(max=1), sensitive)
    before, after = (expected_groups(X, groups, [2, 3], FOLD) for groups in (sensitive, changed))
    assert torch.equal(before[first], after[first])
    assert (before[~first] - after[~first]).abs().max() > 0.05


def test_a_group_that_the_other_folds_lack_is_not_expected() -> None:
    group = (FOLD == 0).long()[:, None]
    likely = expected_groups(X, group, [2], FOLD)
    assert torch.equal(likely[FOLD == 0], torch.tensor([1.0, 0.0]).expand(1000, 2))
    torch.testing.assert_close(likely[FOLD == 1].mean(0), torch.tensor([2 / 3, 1 / 3]), atol=0.01, rtol=0)
