"""Weights against the example in the paper, and what drawing rows by them does."""

import pytest
import torch
from torch import Tensor

from trustml_cli.fairness.metrics import p_rule
from trustml_cli.fairness.reweighing import crossed, resample, reweighing

MEN_AND_WOMEN = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
JOB = torch.tensor([1, 1, 1, 1, 0, 1, 1, 0, 0, 0])


def test_weights_are_those_of_the_paper() -> None:
    # ten applicants, Kamiran and Calders 2012: 4 of 5 men and 2 of 5 women are hired
    weights = reweighing(JOB, MEN_AND_WOMEN)
    expected = {(1, 1): 0.75, (0, 1): 2.0, (1, 0): 1.5, (0, 0): 2 / 3}
    assert weights.tolist() == pytest.approx(
        [expected[int(y), int(z)] for y, z in zip(JOB, MEN_AND_WOMEN, strict=True)]
    )


def unequal(n: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    group = (torch.rand(n, generator=random) < 0.3).long()
    return (torch.rand(n, generator=random) < torch.where(group == 1, 0.1, 0.4)).long(), group


def test_labels_of_drawn_rows_do_not_depend_on_the_group() -> None:
    labels, group = unequal(4000)
    assert p_rule(labels == 1, group) < 40
    drawn = resample(reweighing(labels, group), torch.Generator().manual_seed(1))
    assert p_rule(labels[drawn] == 1, group[drawn]) > 99
    assert labels[drawn].double().mean().item() == pytest.approx(labels.double().mean().item(), abs=1e-3)
    assert group[drawn].double().mean().item() == pytest.approx(group.double().mean().item(), abs=1e-3)


def test_a_row_comes_as_often_as_its_weight_says() -> None:
    labels, group = unequal(4000)
    weights = reweighing(labels, group)
    times = torch.bincount(resample(weights, torch.Generator().manual_seed(1)), minlength=4000)
    assert times.sum() == 4000
    assert ((times == weights.floor()) | (times == weights.ceil())).all()
    assert not torch.equal(
        resample(weights, torch.Generator().manual_seed(1)), resample(weights, torch.Generator().manual_seed(2))
    )


def test_each_combination_of_groups_has_a_number_of_its_own() -> None:
    sensitive = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [0, 1]])
    assert crossed(sensitive).tolist() == [0, 1, 2, 3, 1]
