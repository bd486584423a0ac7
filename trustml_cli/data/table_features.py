"""Columns of a table as features: numbers with bins, and one-hot categories."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from trustml_cli.data.table_columns import as_text
from trustml_cli.system.errors import InputError

RARE = 10  # categories with fewer rows share one feature column
LARGEST = float(np.finfo(np.float32).max)  # maximum absolute value of a feature
ROUNDING = 1e-4  # most that a number may lose as a float32, relative to the standard deviation of its column
LEAF = 8  # minimum rows in each leaf of the decision tree that places the bins


def encode(
    fitted_to: pandas.DataFrame, favourable: NDArray[np.bool_], frames: Sequence[pandas.DataFrame], bins: int
) -> list[NDArray[np.float32]]:
    """Each of `frames` as features, float32 [N, D]; see `encode_named`."""
    return encode_named(fitted_to, favourable, frames, bins)[0]


def encode_named(
    fitted_to: pandas.DataFrame, favourable: NDArray[np.bool_], frames: Sequence[pandas.DataFrame], bins: int
) -> tuple[list[NDArray[np.float32]], tuple[str, ...]]:
    """Each of `frames` as features, float32 [N, D], and the name of the column of each feature.

    Features are numbers with their bins, then one-hot categories. Categories, bins and the median that replaces missing
    numbers are fitted to the rows `fitted_to`, whose labels are `favourable`. Numbers that lie so close together that
    float32 would lose more than `ROUNDING`, such as times in seconds, are taken relative to that median. Categories
    with fewer than `RARE` rows there share one feature, also with unknown ones.
    """
    from sklearn.preprocessing import OneHotEncoder

    numeric = [name for name in fitted_to if is_numeric_dtype(fitted_to[name])]
    words = [name for name in fitted_to if name not in numeric]
    parts: list[list[Any]] = [[] for _ in frames]
    names: list[str] = []
    for name in numeric:
        if any((frame[name].astype(np.float64).abs() > LARGEST).any() for frame in frames):
            raise InputError(
                f"dataset: column {name!r} holds infinity or over {LARGEST:.0e}; mend the file or leave the column out"
            )
        median = fitted_to[name].median()
        if pandas.isna(median):
            raise InputError(f"dataset: column {name!r} holds no number in any training row; leave it out")
        values = [frame[name].fillna(median).to_numpy(dtype=np.float64)[:, None] for frame in (fitted_to, *frames)]
        cuts = tree_cuts(values[0], favourable, bins)
        lost = np.finfo(np.float32).eps * np.abs(values[0]).max()
        centre = median if lost > ROUNDING * values[0].std() else 0.0
        for part, column in zip(parts, values[1:], strict=True):
            part += [column - centre, column > cuts]
        names += [str(name)] * (1 + len(cuts))
    if words:
        encoder = OneHotEncoder(min_frequency=RARE, handle_unknown="infrequent_if_exist", sparse_output=False)
        encoder.fit(texts(fitted_to[words]))
        numbered = encoder.get_feature_names_out([str(number) for number in range(len(words))])
        names += [str(words[int(feature.partition("_")[0])]) for feature in numbered]
        for part, frame in zip(parts, frames, strict=True):
            part.append(encoder.transform(texts(frame[words])))
    return [np.concatenate(part, axis=1, dtype=np.float32) for part in parts], tuple(names)


def tree_cuts(values: NDArray[np.float64], labels: NDArray[np.bool_], bins: int) -> NDArray[np.float64]:
    """Up to `bins` thresholds of a decision tree that predicts labels [N] from values [N, 1], in ascending order.

    The binning of numeric features follows Gorishniy et al. 2022 (arXiv 2203.05556).
    """
    from sklearn.tree import DecisionTreeClassifier

    if bins == 0:
        return np.empty(0)
    tree = DecisionTreeClassifier(max_leaf_nodes=bins + 1, min_samples_leaf=LEAF, random_state=0)
    fitted = tree.fit(values, labels).tree_
    return np.unique(fitted.threshold[fitted.children_left >= 0])


def texts(frame: pandas.DataFrame) -> NDArray[np.object_]:
    """All values as strings, for scikit-learn's encoder of categories."""
    return frame.map(as_text).to_numpy(dtype=object)
