"""Rates and calibration of groups by hand, and against fairlearn's MetricFrame."""

from math import comb, isnan

import pytest
import torch

from trustml_cli.fairness.by_group import group_columns
from trustml_cli.fairness.measure import Scored
from trustml_cli.metrics.calibration import expected_calibration_error

RATES = ("base_rate", "selection_rate", "true_positive_rate", "false_positive_rate", "precision", "accuracy")


def test_rates_worked_out_by_hand() -> None:
    # of the five rows of the group three are positive, of which two are selected, as is one of the negative ones
    odds = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0, 1.0]).double()
    scored = Scored(odds, torch.tensor([1, 1, 1, 0, 0, 0]), torch.tensor([[0]] * 5 + [[1]]))
    columns = group_columns(scored, torch.full((6,), 0.8).double(), scored.sensitive[:, 0] == 0, seed=0)
    expected = (3 / 5, 3 / 5, 2 / 3, 1 / 2, 2 / 3, 3 / 5)
    assert [columns[name] for name in RATES] == pytest.approx(list(expected))
    assert [columns[f"{name}_n"] for name in RATES] == [5, 5, 3, 2, 3, 5]
    assert columns["ece"] == pytest.approx(0.2)  # 0.8 predicted, 0.6 found
    assert columns["ece_ci_low"] <= 0.2 <= columns["ece_ci_high"]
    # of five outcomes with chances of 0.8, k happen: the mean of |k / 5 − 0.8|
    null = sum(comb(5, k) * 0.8**k * 0.2 ** (5 - k) * abs(k / 5 - 0.8) for k in range(6))
    assert columns["ece_null"] == pytest.approx(null, abs=0.02)
    nobody = group_columns(scored, scored.probability, scored.sensitive[:, 0] == 1, seed=0)
    assert nobody["true_positive_rate_n"] == 0
    assert isnan(nobody["true_positive_rate"])


@pytest.mark.peers
def test_fairlearn_and_torchmetrics_find_the_same_rates_and_errors() -> None:
    fairlearn, sklearn = pytest.importorskip("fairlearn.metrics"), pytest.importorskip("sklearn.metrics")
    random = torch.Generator().manual_seed(0)
    group = torch.randint(3, (600,), generator=random)
    labels = (torch.rand(600, generator=random) < 0.2 + 0.2 * group).long()
    scored = Scored(torch.randn(600, generator=random).double() + labels, labels, group[:, None])
    metrics = {
        "base_rate": lambda y_true, y_pred: y_true.mean(),
        "selection_rate": fairlearn.selection_rate,
        "true_positive_rate": fairlearn.true_positive_rate,
        "false_positive_rate": fairlearn.false_positive_rate,
        "precision": sklearn.precision_score,
        "accuracy": sklearn.accuracy_score,
    }
    given = {"y_true": labels.numpy(), "y_pred": scored.selected.long().numpy(), "sensitive_features": group.numpy()}
    frame = fairlearn.MetricFrame(metrics=metrics, **given).by_group
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    for number in range(3):
        here = group == number
        columns = group_columns(scored, scored.probability, here, seed=0)
        assert [columns[name] for name in RATES] == pytest.approx(frame.loc[number, list(RATES)].tolist())
        chance = scored.probability[here]
        assert columns["ece"] == pytest.approx(expected_calibration_error(chance, labels[here] == 1))
        # theirs is of the predicted class; of chances above one half alone, that is the favourable one
        likely = here & scored.selected
        sure = group_columns(scored, scored.probability, likely, seed=0)["ece"]
        theirs = torchmetrics.binary_calibration_error(scored.probability[likely], labels[likely], n_bins=15)
        assert sure == pytest.approx(float(theirs), abs=1e-6)
