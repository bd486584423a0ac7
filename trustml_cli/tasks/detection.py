"""Whether the threshold of a detector holds for images that it was not chosen by."""

from math import sqrt

from trustml_cli.ood.measure import DetectionResult
from trustml_cli.tasks.context import Context

FEWEST = 5  # validation images beyond a threshold from which on it can be checked


def check_threshold(context: Context, name: str, result: DetectionResult, validation: int, quantile: float) -> None:
    """A threshold from validation images holds for test images too, within three standard errors.

    With so few of them that hardly one lies beyond it, nothing can be said.
    """
    share, _ = passed(result)
    enough = validation * (1 - quantile) >= FEWEST
    error = sqrt(quantile * (1 - quantile) * (1 / validation + 1 / len(result.inliers)))
    holds = abs(share - quantile) <= 3 * error
    figure = f"{share:.4f} of test inliers pass, {quantile:g} ± {3 * error:.4f} expected"
    context.record.check(f"the threshold of {name} holds for test images", holds if enough else None, figure)


def passed(result: DetectionResult) -> tuple[float, float]:
    """The shares of inliers and of outliers that pass."""
    return result.inliers_passed / len(result.inliers), result.outliers_passed / len(result.outliers)
