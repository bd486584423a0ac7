"""Check of a detector's threshold on images that it was not chosen on."""

from math import sqrt

from trustml_cli.ood.measure import DetectionResult
from trustml_cli.tasks.context import Context

FEWEST = 5  # with fewer validation images beyond the threshold, the check is undecided


def check_threshold(context: Context, name: str, result: DetectionResult, validation: int, quantile: float) -> None:
    """Check that the share of test inliers below the threshold is `quantile`, within three standard errors.

    The check is undecided (None) where fewer than `FEWEST` validation images are expected beyond the threshold.
    """
    share = result.inliers_passed / len(result.inliers)
    enough = validation * (1 - quantile) >= FEWEST
    error = sqrt(quantile * (1 - quantile) * (1 / validation + 1 / len(result.inliers)))
    holds = abs(share - quantile) <= 3 * error
    figure = f"{share:.4f} of test inliers pass, {quantile:g} ± {3 * error:.4f} expected"
    context.record.check(f"the threshold of {name} holds for test images", holds if enough else None, figure)
