"""What fairlearn needs to work on given scores."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The first column is the probability."""

    classes_ = np.array([0, 1])

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Scores":
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.stack([1 - x[:, 0], x[:, 0]], 1)
