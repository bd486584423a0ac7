"""task=train: train a classifier and measure its test accuracy."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.calibration import expected_calibration_error
from trustml_cli.metrics.columns import Columns, headline, higher, lower, neither, sometimes
from trustml_cli.metrics.intervals import by_image, proportion
from trustml_cli.models.dense import Logistic
from trustml_cli.models.linear import linear_parameters
from trustml_cli.models.model import Model
from trustml_cli.plots.training import confusion_matrix, misclassified
from trustml_cli.tasks.context import Context
from trustml_cli.training.logistic import gradient_error
from trustml_cli.training.predict import BATCH, predict
from trustml_cli.training.trainer import Trainer

ROUNDING = 1e-9  # largest difference between gradients in float64 that is due to rounding


@dataclass(frozen=True)
class Train:
    """Train `model` on `dataset` and report accuracy, loss and calibration."""

    columns: ClassVar[Columns] = (
        *higher("train_accuracy"),
        *headline(higher("test_accuracy")),
        *lower("test_loss", "ece"),
        *neither("epochs"),
        *lower("seconds"),
        *sometimes(higher("images_per_second")),
        *sometimes(lower("epsilon", "delta")),
        *sometimes(neither("noise_multiplier", "clipped_share", "accountant", "rehearsal")),
        *sometimes(lower("gradient_error")),  # of logistic regression
    )

    def __call__(
        self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer, defence: Defence
    ) -> None:
        """Write one row: both accuracies, test loss, calibration error, and cost of training; then the plots."""
        data = context.load(dataset)
        trained = context.train_or_load(context.spec(data, model, trainer, defence=defence))
        train = predict(trained.network, data.train, context.hardware)
        test = predict(trained.network, data.test, context.hardware)
        seconds = sum(epoch.seconds for epoch in trained.history)
        images = sum(epoch.images for epoch in trained.history)
        context.record.metrics(
            **proportion("train_accuracy", int(train.correct.sum()), len(train.labels)),
            **by_image("test_accuracy", test.correct),
            test_loss=test.loss,
            ece=expected_calibration_error(test.confidence, test.correct),
            epochs=trained.history[-1].epoch if trained.history else 0,
            seconds=seconds,
            images_per_second=images / seconds if seconds else None,
            **(trainer.columns(len(data.train), trained.history) if model.trains else {}),
            **(check_gradients(context, trained.network, data) if isinstance(model, Logistic) else {}),
        )
        context.plot_curves()
        context.record.plot("confusion", confusion_matrix(test, data.classes))
        if len(data.shape) == 3 and not test.correct.all():  # rows of a table cannot be shown as images
            context.record.plot("misclassified", misclassified(test, data.test, data.classes))


def check_gradients(context: Context, network: nn.Module, data: Dataset) -> dict[str, float]:
    """Check the softmax gradients that `trainer=numpy` derives by hand against autograd's, at the trained weights.

    Returns the largest difference; empty for a network that is not linear, such as one with a calibrator after it.
    """
    try:
        parameters = linear_parameters(network, data.shape)
    except ValueError:
        return {}
    x, y = next(batches(data.train, BATCH, context.hardware.device))
    error = gradient_error(parameters, x, y)
    classes, values = len(parameters), parameters.shape[1] - 1
    figure = (
        f"∂L/∂W = (p − y)ᵀx / N, {classes} × {values} numbers, and ∂L/∂b = Σ(p − y) / N, {classes} numbers, with "
        f"p = softmax(xWᵀ + b), on N = {len(y):,} training examples: largest difference {error:.1e}"
    )
    context.record.check("the gradients derived by hand equal autograd's", error <= ROUNDING, figure)
    return {"gradient_error": error}
