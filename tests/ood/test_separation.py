"""How well scores tell outliers from inliers: by hand, against peers, and intervals against drawing rows one by one."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor

from trustml_cli.metrics.intervals import wilson_interval
from trustml_cli.ood.separation import MEASURES, Separation, separation, separation_intervals

INLIERS, OUTLIERS = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([3.5, 5]).double()


def test_measures_worked_out_by_hand() -> None:
    found = separation(INLIERS, OUTLIERS)
    assert found.auroc == 7 / 8  # of eight pairs, one is the wrong way round
    assert found.aupr_outliers_positive == pytest.approx((1 + 2 / 3) / 2)  # 5 at precision 1, 3.5 behind the inlier 4
    assert found.aupr_inliers_positive == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)  # 4 behind the outlier 3.5
    assert found.fpr_at_95_tpr_outliers_positive == 0.25  # to find both, the inlier 4 is flagged
    assert found.fpr_at_95_tpr_inliers_positive == 0.5  # to let all four pass, the outlier 3.5 passes
    assert (found.fpr, found.tpr) == ([0, 0, 0.25, 0.25, 0.5, 0.75, 1], [0, 0.5, 0.5, 1, 1, 1, 1])


def test_of_one_kind_of_twenty_the_twentieth_need_not_be_found() -> None:
    hidden = torch.cat([torch.full((19,), 2.0), torch.tensor([-5.0])])
    assert separation(torch.tensor([0.0, 1.0]), hidden).fpr_at_95_tpr_outliers_positive == 0
    assert separation(torch.tensor([0.0, 1.0]), torch.cat([hidden, hidden[-1:]])).fpr_at_95_tpr_outliers_positive == 1


def overlapping() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    inliers, outliers = torch.randn(700, generator=random), 1.2 + torch.randn(300, generator=random)
    return (inliers.double() * 8).round() / 8, (outliers.double() * 8).round() / 8  # with many ties


def by_scikit_learn(inliers: np.ndarray, outliers: np.ndarray) -> dict[str, float]:
    """All five measures."""
    scores, is_outlier = np.concatenate([inliers, outliers]), np.repeat([0, 1], [len(inliers), len(outliers)])
    found = {"auroc": roc_auc_score(is_outlier, scores)}
    for name, positive, sign in (("outliers", is_outlier, 1), ("inliers", 1 - is_outlier, -1)):
        fpr, tpr, _ = roc_curve(positive, sign * scores, drop_intermediate=False)
        found[f"aupr_{name}_positive"] = average_precision_score(positive, sign * scores)
        found[f"fpr_at_95_tpr_{name}_positive"] = fpr[tpr >= 0.95].min()
    return found


def values(found: Separation) -> dict[str, float]:
    return {name: getattr(found, name) for name in MEASURES}


@pytest.mark.parametrize("ties", [True, False])
def test_measures_equal_those_of_scikit_learn(ties: bool) -> None:
    inliers, outliers = overlapping()
    if not ties:
        random = torch.Generator().manual_seed(4)
        inliers, outliers = (part + 0.01 * torch.rand(len(part), generator=random) for part in (inliers, outliers))
    expected = by_scikit_learn(inliers.numpy(), outliers.numpy())
    assert values(separation(inliers, outliers)) == pytest.approx(expected, abs=1e-12)
    assert expected["fpr_at_95_tpr_inliers_positive"] != expected["fpr_at_95_tpr_outliers_positive"]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_measures_equal_those_of_pytorch_ood_and_torchmetrics() -> None:
    from pytorch_ood.metrics import AUROC, FPRAtTPR
    from torchmetrics.functional.classification import binary_average_precision

    inliers, outliers = overlapping()
    ours = separation(inliers, outliers)
    scores = torch.cat([inliers, outliers])
    labels = torch.cat([torch.zeros(len(inliers)), -torch.ones(len(outliers))]).long()  # negative for outliers
    assert ours.auroc == pytest.approx(AUROC().update(scores, labels).compute()["AUROC"], abs=1e-12)
    theirs = FPRAtTPR(0.95).update(scores, labels).compute()["FPR95TPR"]
    assert ours.fpr_at_95_tpr_outliers_positive == theirs
    swapped = FPRAtTPR(0.95).update(-scores, -1 - labels).compute()["FPR95TPR"]
    assert ours.fpr_at_95_tpr_inliers_positive == swapped
    shrunk = (scores - scores.min()) / (scores.max() - scores.min())  # torchmetrics takes others for logits
    theirs = binary_average_precision(shrunk, (labels < 0).long())
    assert ours.aupr_outliers_positive == pytest.approx(theirs.item(), abs=1e-6)
    theirs = binary_average_precision(1 - shrunk, (labels == 0).long())
    assert ours.aupr_inliers_positive == pytest.approx(theirs.item(), abs=1e-6)


def test_intervals_are_those_of_drawing_both_samples_again() -> None:
    random = np.random.default_rng(1)
    inliers, outliers = random.normal(0, 1, 120), random.normal(1.5, 1, 40)
    again = [by_scikit_learn(random.choice(inliers, 120), random.choice(outliers, 40)) for _ in range(400)]
    found = separation_intervals(torch.from_numpy(inliers), torch.from_numpy(outliers), seed=0)
    for name in MEASURES:
        low, high = np.quantile([one[name] for one in again], [0.025, 0.975])
        width = high - low
        assert found[name] == (pytest.approx(low, abs=0.2 * width), pytest.approx(high, abs=0.2 * width)), name
    assert found == separation_intervals(torch.from_numpy(inliers), torch.from_numpy(outliers), seed=0)
    assert found != separation_intervals(torch.from_numpy(inliers), torch.from_numpy(outliers), seed=1)


def test_few_outliers_make_the_rate_of_flagged_inliers_uncertain_though_there_are_many_of_these() -> None:
    random = torch.Generator().manual_seed(0)
    inliers, outliers = torch.randn(2000, generator=random), 2.5 + torch.randn(30, generator=random)
    found = separation(inliers, outliers)
    low, high = separation_intervals(inliers, outliers, seed=0)["fpr_at_95_tpr_outliers_positive"]
    alone = wilson_interval(found.flagged, found.inliers)
    assert high - low > 3 * (alone[1] - alone[0])
    assert low <= found.fpr_at_95_tpr_outliers_positive <= high


def test_samples_that_do_not_overlap_still_have_intervals() -> None:
    found = separation_intervals(torch.arange(50).double(), torch.arange(100, 120).double(), seed=0)
    for name in ("auroc", "aupr_outliers_positive", "aupr_inliers_positive"):
        assert found[name] == (pytest.approx(wilson_interval(20, 20)[0]), 1)  # as of the smaller sample
    assert found["fpr_at_95_tpr_outliers_positive"] == (0, pytest.approx(wilson_interval(0, 50)[1]))
    assert found["fpr_at_95_tpr_inliers_positive"] == (0, pytest.approx(wilson_interval(0, 20)[1]))


def test_intervals_hold_what_is_true_in_nearly_nineteen_of_twenty_cases() -> None:
    random = torch.Generator().manual_seed(5)
    truth, held = 0.92135, 0  # of N(0, 1) against N(2, 1): Φ(2 / √2)
    for trial in range(60):
        inliers, outliers = torch.randn(80, generator=random), 2 + torch.randn(25, generator=random)
        low, high = separation_intervals(inliers, outliers, seed=trial)["auroc"]
        held += low <= truth <= high
    assert held >= 51
