"""The threshold and the measures, by hand and against peers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trustml_cli.ood.measure import exact_quantile, judge, separation

ONE_TO_TEN = torch.tensor([4.0, 9, 1, 10, 3, 7, 5, 2, 8, 6]).double()


@pytest.mark.parametrize(
    ("quantile", "threshold"), [(0.9, 9), (0.95, 10), (0.89, 9), (0.5, 5), (0.51, 6), (0.1, 1), (0.001, 1), (0.999, 10)]
)
def test_the_threshold_is_the_exact_quantile_by_hand(quantile: float, threshold: float) -> None:
    assert exact_quantile(ONE_TO_TEN, quantile) == threshold


def test_of_twenty_images_nineteen_pass_and_ties_pass_together() -> None:
    scores = torch.arange(20).double()
    assert exact_quantile(scores, 0.95) == 18
    assert exact_quantile(torch.tensor([1.0, 1, 1, 2]).double(), 0.5) == 1
    assert exact_quantile(torch.arange(1, 101).double(), 0.55) == 55  # though 0.55 · 100 is 55.000000000000007


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.001, 0.999))
def test_enough_images_pass_and_with_the_next_lower_score_too_few_would(values: list[float], quantile: float) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    threshold = exact_quantile(scores, quantile)
    assert threshold in values
    assert (scores <= threshold).sum() >= quantile * len(values) - 1e-6
    assert (scores < threshold).sum() < quantile * len(values)


def test_the_quantile_equals_numpys() -> None:
    scores = torch.randn(997, generator=torch.Generator().manual_seed(0)).double()
    for quantile in (0.05, 0.5, 0.9, 0.95, 0.99):
        assert exact_quantile(scores, quantile) == np.quantile(scores.numpy(), quantile, method="inverted_cdf")


def test_measures_worked_out_by_hand() -> None:
    inliers, outliers = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([3.5, 5]).double()
    found = separation(inliers, outliers)
    assert found.auroc == 7 / 8  # of eight pairs, one is the wrong way round
    assert found.aupr == pytest.approx((1 + 2 / 3) / 2)  # 5 is found at precision 1, 3.5 behind the inlier 4
    assert found.fpr_at_95_tpr == 0.25  # to find both, the inlier 4 is flagged
    judged = judge(torch.tensor([1.0, 2, 3, 3.5]).double(), inliers, outliers, 0.75)
    assert (judged.threshold, judged.inliers_passed, judged.outliers_passed) == (3, 3, 0)
    assert judge(ONE_TO_TEN, inliers, outliers, 0.4).inliers_passed == 4  # a score at the threshold passes


def overlapping() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    inliers, outliers = torch.randn(700, generator=random), 1.2 + torch.randn(300, generator=random)
    return (inliers.double() * 8).round() / 8, (outliers.double() * 8).round() / 8  # with many ties


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_measures_equal_those_of_pytorch_ood_torchmetrics_and_scikit_learn() -> None:
    from pytorch_ood.metrics import AUROC, FPRAtTPR
    from sklearn.metrics import auc, roc_curve
    from torchmetrics.functional.classification import binary_average_precision

    inliers, outliers = overlapping()
    scores = torch.cat([inliers, outliers])
    labels = torch.cat([torch.zeros(len(inliers)), -torch.ones(len(outliers))]).long()
    ours = separation(inliers, outliers)
    assert ours.auroc == pytest.approx(AUROC().update(scores, labels).compute()["AUROC"], abs=1e-12)
    assert ours.fpr_at_95_tpr == FPRAtTPR(0.95).update(scores, labels).compute()["FPR95TPR"]
    fpr, tpr, _ = roc_curve(labels < 0, scores)
    assert ours.auroc == pytest.approx(auc(fpr, tpr), abs=1e-12)
    assert ours.fpr_at_95_tpr == pytest.approx(min(rate for rate, found in zip(fpr, tpr, strict=True) if found >= 0.95))
    shrunk = (scores - scores.min()) / (scores.max() - scores.min())  # torchmetrics takes others for logits
    theirs = binary_average_precision(shrunk, (labels < 0).long())
    assert ours.aupr == pytest.approx(theirs.item(), abs=1e-6)
