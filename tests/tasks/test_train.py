"""task=train: the gradients of a logistic regression, checked."""

import pytest

from tests.helpers import FRESH, facts, metrics
from tests.tasks.parts import MODEL, TRAINER, Given
from trustml_cli.data.dataset import Dataset
from trustml_cli.defences.defence import Defence
from trustml_cli.models.dense import Logistic
from trustml_cli.models.model import Model, Normalization
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.train import Train

LINEAR = Logistic(normalization=Normalization.dataset, **FRESH)


@pytest.mark.parametrize("model", [LINEAR, MODEL])
def test_the_gradients_of_a_linear_model_are_checked_and_of_no_other(
    model: Model, context: Context, tiny_data: Dataset
) -> None:
    Train()(context, Given(limit=None, data=tiny_data), model, TRAINER, Defence())
    row, checks = metrics(context.record.directory).iloc[0], facts(context.record.directory).get("checks", [])
    assert ("gradient_error" in row) == (model is LINEAR)
    if model is LINEAR:
        assert row.gradient_error < 1e-12
        (check,) = checks
        assert check["passed"]
        assert "2 × 64 numbers" in check["figure"]
        assert "N = 64 training examples" in check["figure"]
