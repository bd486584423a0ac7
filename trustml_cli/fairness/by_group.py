"""Rates and calibration of one classifier in each group.

Calibration in every group and equalized odds exclude each other, unless the groups have the same share of positives or
the classifier makes no errors (Kleinberg, Mullainathan and Raghavan 2016, arXiv 1609.05807; Chouldechova 2017, arXiv
1610.07524).
"""

from typing import Any

from torch import Tensor

from trustml_cli.fairness.measure import Scored
from trustml_cli.metrics.calibration import calibration_error_columns
from trustml_cli.metrics.intervals import proportion


def group_columns(scored: Scored, probability: Tensor, here: Tensor, seed: int) -> dict[str, Any]:
    """The rates of the rows `here`, bool [N], each with 95 % interval and n, and their calibration error.

    `base_rate` is the share of the favourable label. `probability` is the predicted probability of the favourable
    label, [N], from which `ece` is computed, beside `ece_null`, the error of a calibrated classifier.
    """
    rows = scored.subset(here.nonzero()[:, 0])
    positive, selected = rows.labels == 1, rows.selected
    both = int((positive & selected).sum())
    positives, negatives, chosen, n = int(positive.sum()), int((~positive).sum()), int(selected.sum()), len(positive)
    return {
        **proportion("base_rate", positives, n),
        **proportion("selection_rate", chosen, n),
        **proportion("true_positive_rate", both, positives),
        **proportion("false_positive_rate", chosen - both, negatives),
        **proportion("precision", both, chosen),
        **proportion("accuracy", int(rows.right.sum()), n),
        **calibration_error_columns(probability[here], positive, seed),
    }
