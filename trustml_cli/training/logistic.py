"""Two further trainers for logistic regression: scikit-learn's solver, and numpy with gradients derived by hand."""

import logging
import warnings
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.models.dense import Logistic
from trustml_cli.models.model import Model
from trustml_cli.system.errors import RunFailed
from trustml_cli.system.hardware import Hardware
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Epoch, Report, Trainer, finite

log = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class LogisticTrainer(Trainer):
    """Base class of trainers that fit the linear layer of `model=logistic` and no other model."""

    def check(self, model: Model) -> None:
        if not isinstance(model, Logistic):
            raise ValueError(
                f"fits a logistic regression only, not {type(model).__name__}; use model=logistic or trainer=default"
            )


@dataclass(frozen=True, kw_only=True)
class SklearnTrainer(LogisticTrainer):
    """scikit-learn's LogisticRegression (L-BFGS), whose weights are then copied into the network.

    `C` is its inverse regularization strength, `max_iter` the maximum number of iterations.
    """

    C: float
    max_iter: int

    def __post_init__(self) -> None:
        require(self, "C", above=0)
        require(self, "max_iter", at_least=1)

    def fit(self, network: nn.Sequential, data: Dataset, hardware: Hardware, report: Report, *_: object) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        start = perf_counter()
        features, labels = design_matrix(network, data.train)
        if absent := set(range(len(data.classes))) - set(labels.tolist()):
            raise RunFailed(f"trainer=sklearn needs an image of every class; {data.classes[min(absent)]!r} has none")
        solver = LogisticRegression(C=self.C, max_iter=self.max_iter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            solver.fit(features, labels)
        if (iterations := int(solver.n_iter_[0])) >= self.max_iter:
            log.info("scikit-learn stopped after max_iter=%d iterations, before it converged", iterations)
        weights, bias = solver.coef_, solver.intercept_
        if len(data.classes) == 2:  # scikit-learn keeps the second class's row only
            weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
        set_weights(network, weights, bias)
        images = iterations * len(labels)
        report_once(
            network, data, hardware, report, epoch=iterations, step=iterations, images=images, lr=0.0, start=start
        )


@dataclass(frozen=True, kw_only=True)
class NumpyTrainer(LogisticTrainer):
    """Mini-batch gradient descent in numpy, with the gradients of `softmax_gradients`.

    The learning rate falls linearly from `lr` to zero; `weight_decay` is the factor of ½‖W‖² in the loss.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        require(self, "epochs", "batch_size", at_least=1)
        require(self, "lr", above=0)
        require(self, "weight_decay", at_least=0)

    @np.errstate(over="ignore", invalid="ignore")  # `finite` detects it
    def fit(self, network: nn.Sequential, data: Dataset, hardware: Hardware, report: Report, *_: object) -> None:
        features, labels = design_matrix(network, data.train)
        one_hot = np.eye(len(data.classes), dtype=np.float32)[labels]
        weights = np.zeros((len(data.classes), features.shape[1]), dtype=np.float32)
        bias = np.zeros(len(data.classes), dtype=np.float32)
        random = np.random.default_rng(int(torch.randint(2**31, ()).item()))
        steps = -(-len(labels) // self.batch_size)
        bar = Progress(range(1, self.epochs + 1), desc="training", unit="epoch")
        for epoch in bar:
            start = perf_counter()
            lr = self.lr * (1 - (epoch - 1) / self.epochs)
            for batch in np.array_split(random.permutation(len(labels)), steps):
                loss, weights_grad, bias_grad = softmax_gradients(weights, bias, features[batch], one_hot[batch])
                weights -= lr * (weights_grad + self.weight_decay * weights)
                bias -= lr * bias_grad
            bar.tell(loss=f"{finite(loss):.3f}")
            set_weights(network, weights, bias)
            at = {"epoch": epoch, "step": epoch * steps}
            report_once(network, data, hardware, report, **at, images=len(labels), lr=lr, start=start)


def softmax_gradients(weights: Array, bias: Array, x: Array, one_hot: Array) -> tuple[float, Array, Array]:
    """Mean softmax cross-entropy of a linear model and its gradients, derived by hand.

    With logits z = xWᵀ + b and p = softmax(z), ∂loss/∂z = (p − y)/N; the chain rule gives (p − y)ᵀx/N for W and the
    column sums for b. Shapes: weights [K, D], bias [K], x [N, D], one_hot [N, K]; returns loss (nats), [K, D], [K].
    """
    logits = x @ weights.T + bias
    logits -= logits.max(axis=1, keepdims=True)  # leaves the softmax unchanged and avoids overflow
    exponentials = np.exp(logits)
    totals = exponentials.sum(axis=1, keepdims=True)
    loss = float((np.log(totals[:, 0]) - (logits * one_hot).sum(axis=1)).mean())
    error = (exponentials / totals - one_hot) / len(x)
    return loss, error.T @ x, error.sum(axis=0)


def gradient_error(parameters: Tensor, x: Tensor, y: Tensor) -> float:
    """The largest absolute difference between `softmax_gradients` and autograd's gradients, over W and b, in float64.

    Weights and bias [K, D + 1] of a linear model, inputs x [N, …] of D values each, labels y [N].
    """
    weights, bias = (part.double().cpu().requires_grad_() for part in (parameters[:, :-1], parameters[:, -1]))
    x, y = x.double().cpu().flatten(1), y.cpu()
    loss = nn.functional.cross_entropy(x @ weights.T + bias, y)
    one_hot = nn.functional.one_hot(y, len(bias)).double()
    _, *by_hand = softmax_gradients(*(values.detach().numpy() for values in (weights, bias, x, one_hot)))
    by_autograd = torch.autograd.grad(loss, (weights, bias))
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(by_hand, by_autograd, strict=True))


@torch.no_grad()
def design_matrix(network: nn.Sequential, split: Split) -> tuple[Array, Array]:
    """The normalised pixels of every image as rows, float32 [N, D], and the labels [N]."""
    normalize = network.get_submodule("normalize")
    parts = [(normalize(x).flatten(1), y) for x, y in batches(split, 1000, torch.device("cpu"))]
    return torch.cat([x for x, _ in parts]).numpy(), torch.cat([y for _, y in parts]).numpy()


@torch.no_grad()
def set_weights(network: nn.Sequential, weights: Array, bias: Array) -> None:
    """Copy weights [K, D] and bias [K] into the network's linear layer."""
    linear = network.get_submodule("network")[1]  # type: ignore[index]
    for parameter, values in ((linear.weight, weights), (linear.bias, bias)):
        assert isinstance(parameter, Tensor)
        parameter.copy_(torch.from_numpy(np.asarray(values)))


def report_once(
    network: nn.Sequential,
    data: Dataset,
    hardware: Hardware,
    report: Report,
    *,
    epoch: int,
    step: int,
    images: int,
    lr: float,
    start: float,
) -> None:
    """Evaluate the network on both splits and report one row of history.csv."""
    seconds = perf_counter() - start
    network.to(hardware.device)
    train, test = predict(network, data.train, hardware), predict(network, data.test, hardware)
    report(
        Epoch(
            epoch=epoch,
            step=step,
            train_loss=finite(train.loss),
            train_accuracy=train.accuracy,
            test_loss=finite(test.loss),
            test_accuracy=test.accuracy,
            lr=lr,
            seconds=seconds,
            images=images,
        )
    )
    network.cpu()
