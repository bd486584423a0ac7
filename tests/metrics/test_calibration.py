"""Errors of probabilities against torchmetrics, scikit-learn and numbers worked out by hand."""

from math import pi, sqrt

import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor

from trustml_cli.metrics.calibration import (
    brier_scores,
    calibration_columns,
    classwise,
    equal_mass,
    expected_calibration_error,
    perfect_errors,
    top_label,
)


@pytest.mark.parametrize(
    ("confidence", "correct", "bins", "expected"),
    [
        ([1.0, 1.0], [True, True], 15, 0.0),
        ([1.0, 1.0], [False, False], 15, 1.0),
        ([0.9, 0.9, 0.9, 0.9], [True, True, True, False], 15, 0.15),
        # two bins: one of accuracy 1 at 0.3, the other of accuracy 1/2 at 0.75; 1/3 · 0.7 + 2/3 · 0.25
        ([0.3, 0.7, 0.8], [True, True, False], 2, 0.4),
        # a border belongs to the bin below: (0, 0.5] holds both
        ([0.5, 0.25], [True, False], 2, 0.125),
        ([0.5, 0.75], [True, False], 2, 0.625),
        ([0.0, 0.5], [False, True], 2, 0.25),
    ],
)
def test_the_calibration_error_is_the_one_by_hand(
    confidence: list[float], correct: list[bool], bins: int, expected: float
) -> None:
    error = expected_calibration_error(torch.tensor(confidence), torch.tensor(correct), bins)
    assert error == pytest.approx(expected, abs=1e-6)


@pytest.mark.peers
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_torchmetrics_s(bins: int) -> None:
    calibration = pytest.importorskip("torchmetrics.functional.classification")
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (500,), generator=random)
    probabilities = (2 * torch.randn(500, 5, generator=random)).softmax(1)
    confidence, predicted = probabilities.max(1)
    expected = calibration.multiclass_calibration_error(probabilities, labels, num_classes=5, n_bins=bins)
    ours = expected_calibration_error(confidence, predicted == labels, bins)
    assert ours == pytest.approx(expected.item(), abs=1e-6)
    assert ours > 0.1


def test_bins_of_equal_mass_hold_as_many_examples_each() -> None:
    confidence = torch.tensor([0.9, 0.2, 0.95, 0.3, 0.99, 0.4])
    assert equal_mass(confidence, 3).tolist() == [1, 0, 2, 0, 2, 1]
    correct = torch.tensor([True, False, True, True, False, True])
    # |0 + 1 − 0.5| + |2 − 1.3| + |1 − 1.94|, over six
    assert top_label(confidence, correct, 3, mass=True).error == pytest.approx((0.5 + 0.7 + 0.94) / 6, abs=1e-6)


def test_the_classwise_error_is_the_mean_over_the_classes() -> None:
    probability = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    # one bin for each half; class 0: (|2 − 1.3| + |0 − 0.2|) / 3 and class 1: (|0 − 0.7| + |1 − 0.8|) / 3
    assert classwise(probability, torch.tensor([0, 0, 1]), 2).error == pytest.approx((0.9 + 0.9) / 6, abs=1e-6)


def test_the_brier_score_is_the_squared_distance_to_the_label() -> None:
    probability = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert brier_scores(probability, torch.tensor([0, 2])).tolist() == pytest.approx([0.14, 2.0], abs=1e-6)


def test_a_perfect_model_shows_the_error_that_chance_makes() -> None:
    confidence = torch.full((400,), 0.7)
    errors = perfect_errors(confidence, seed=0)
    assert len(errors) == 1000
    # one bin: the mean distance of a share of 400 from 0.7 is √(2 · 0.7 · 0.3 / (400 π))
    assert errors.mean() == pytest.approx(sqrt(2 * 0.21 / (400 * pi)), rel=0.05)


def simulated(factor: float, count: int = 2000) -> tuple[Tensor, Tensor]:
    """Logits of a perfect model times `factor`, and labels."""
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(count, 5, generator=random)
    return factor * logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]


def test_columns_of_a_perfect_and_of_an_overconfident_model() -> None:
    perfect, sure = (calibration_columns(*simulated(factor), seed=0) for factor in (1.0, 3.0))
    for columns in (perfect, sure):
        for name in ("nll", "brier", "ece", "ece_adaptive", "ece_classwise", "ece_null"):
            low, value, high = (float(columns[f"{name}{end}"]) for end in ("_ci_low", "", "_ci_high"))  # type: ignore[arg-type]
            assert 0 <= low <= value <= high
            assert high - low > 1e-4
            assert columns[f"{name}_n"] == 2000
    for name in ("ece", "ece_adaptive", "ece_classwise"):
        assert perfect[name] < 0.04 < sure[name]  # type: ignore[operator]
        assert sure[f"{name}_ci_low"] > perfect[f"{name}_ci_high"]  # type: ignore[operator]
    assert perfect["ece"] < perfect["ece_null_ci_high"]  # type: ignore[operator]
    assert sure["ece"] > sure["ece_null_ci_high"]  # type: ignore[operator]
    logits, labels = simulated(3.0)
    assert sure["nll"] == pytest.approx(log_loss(labels, logits.double().softmax(1)), rel=1e-6)
    confidence, predicted = logits.softmax(1).max(1)
    assert sure["ece"] == pytest.approx(expected_calibration_error(confidence, predicted == labels), abs=1e-6)


def test_intervals_hold_the_error_of_endless_data_about_as_often_as_they_say() -> None:
    logits, labels = simulated(2.0, 60_000)
    confidence, predicted = logits.softmax(1).max(1)
    true = expected_calibration_error(confidence, predicted == labels)
    held = 0
    for part in range(12):
        rows = slice(150 * part, 150 * part + 150)
        columns = calibration_columns(logits[rows], labels[rows], seed=part)
        held += float(columns["ece_ci_low"]) <= true <= float(columns["ece_ci_high"])  # type: ignore[arg-type]
    assert held >= 10
