"""task=overfit: errors over capacity, inside and outside of the range of the points."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.tasks.overfit import Kind, curve, fitted


def test_a_polynomial_of_enough_degrees_goes_through_its_points_and_the_network_nearly() -> None:
    x = np.linspace(-1, 1, 6)
    y = curve(x)
    assert fitted(Kind.polynomial, 5, x, y, 0)(x) == pytest.approx(y, abs=1e-9)
    assert fitted(Kind.polynomial, 0, x, y, 0)(x) == pytest.approx(np.full(6, y.mean()), abs=1e-9)
    beyond = fitted(Kind.polynomial, 3, x, x**3 - x, 0)(np.array([2.0]))
    assert beyond == pytest.approx([6.0], abs=1e-9)
    assert np.abs(fitted(Kind.network, 16, x, y, 0)(x) - y).max() < 0.05


def test_capacity_fits_few_points_and_loses_the_curve(trustml: Cli, tmp_path: Path) -> None:
    words = ("task.degree=[1,5,9]", "task.width=[1,8]", "task.draws=3")
    answer = trustml("task=overfit", *words)
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = metrics(run)
    rows = table.set_index(["function", "points", "capacity"]).sort_index()
    assert len(rows) == 3 * 5
    few, many, uneven = (rows.loc["polynomial", name] for name in ("few", "many", "uneven"))
    assert few.train_error[9] < 1e-20 < few.train_error[5] < few.train_error[1]
    assert few.validation_error[9] > few.validation_error[5] > 0.04
    assert many.validation_error[9] == pytest.approx(0.04, rel=0.4)
    assert many.train_error[9] > 0.02
    assert (few.outside_error > few.validation_error)[[5, 9]].all()
    assert uneven.validation_error[9] > 10 * few.validation_error[9]
    network = rows.loc["network", "few"]
    assert network.train_error[8] < 0.01 < network.train_error[1]
    assert (table.validation_error_n == 3).all()
    assert (table.dataset == "curve").all()
    assert facts(run)["model"] == "function"
    assert {path.stem for path in (run / "plots").iterdir()} == {"fits_polynomial", "fits_network", "capacity"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.many=5",), ("task.many", "more than few (10)")),
    ],
)
def test_bad_input_is_refused(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    answer = trustml("task=overfit", *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
