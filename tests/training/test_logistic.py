"""Logistic regression fitted in two other ways: scikit-learn's solver, and gradients derived by hand."""

import logging
from dataclasses import fields, replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from tests.configs import choice
from tests.helpers import CPU, FRESH
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.models.dense import Logistic, Mlp
from trustml_cli.models.model import InputSpec, Normalization
from trustml_cli.system.errors import InputError, RunFailed
from trustml_cli.system.hardware import seeded
from trustml_cli.training import logistic
from trustml_cli.training.logistic import (
    NumpyTrainer,
    SklearnTrainer,
    design_matrix,
    gradient_error,
    softmax_gradients,
)
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Epoch, Trainer

pytestmark = pytest.mark.e2e  # trains

YAMLS = {name: choice("trainer", name) for name in ("numpy", "sklearn")}
NUMPY: NumpyTrainer = build(YAMLS["numpy"], "trainer")
SKLEARN: SklearnTrainer = build(YAMLS["sklearn"], "trainer")
MODEL = {**FRESH, "normalization": Normalization.dataset}


def clouds(classes: int, present: int | None = None) -> Dataset:
    """Noisy 4×4 images of so many brightnesses that overlap; `present` of the classes occur in training."""
    random = torch.Generator().manual_seed(classes)

    def split(count: int, classes: int) -> InMemory:
        labels = torch.arange(count) % classes
        images = torch.randint(0, 160, (count, 1, 4, 4), generator=random) + 20 * labels.view(-1, 1, 1, 1)
        return InMemory(images.to(torch.uint8), labels)

    names = tuple("abcdef"[:classes])
    return Dataset(split(120, present or classes), split(60, classes), names, "clouds", "made up")


def fit(trainer: Trainer, data: Dataset, seed: int = 0) -> tuple[nn.Sequential, list[Epoch]]:
    history: list[Epoch] = []
    with seeded(seed):
        network = Logistic(**MODEL).build(InputSpec(data.shape, len(data.classes), mean=(0.4,), std=(0.2,)))
        trainer.fit(network, data, CPU, history.append)
    return network, history


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(2, 5)), seed=st.integers(0, 2**32 - 1))
def test_the_gradients_by_hand_are_autograd_s(shape: tuple[int, int, int], seed: int) -> None:
    images, pixels, classes = shape
    random = np.random.default_rng(seed)
    weights, bias = random.normal(size=(classes, pixels)), random.normal(size=classes)
    x, one_hot = random.normal(size=(images, pixels)), np.eye(classes)[random.integers(classes, size=images)]
    loss, *gradients = softmax_gradients(weights, bias, x, one_hot)

    leaves = [torch.from_numpy(array).requires_grad_() for array in (weights, bias)]
    expected = functional.cross_entropy(functional.linear(torch.from_numpy(x), *leaves), torch.from_numpy(one_hot))
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, leaves), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6, rtol=0)


def test_a_wrong_derivation_differs_from_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, x, y = torch.rand(3, 5), torch.rand(7, 1, 2, 2), torch.arange(7) % 3
    assert gradient_error(parameters, x, y) < 1e-15
    right = softmax_gradients(parameters[:, :-1].numpy(), parameters[:, -1].numpy(), x.flatten(1).numpy(), np.eye(3)[y])
    monkeypatch.setattr(logistic, "softmax_gradients", lambda *values: [*softmax_gradients(*values)[:2], 0.0])
    assert gradient_error(parameters, x, y) == pytest.approx(np.abs(right[2]).max(), rel=1e-5)


def test_large_logits_do_not_overflow() -> None:
    loss, weights_grad, _ = softmax_gradients(
        np.array([[1e4], [-1e4]]), np.zeros(2), np.ones((1, 1)), np.array([[0.0, 1.0]])
    )
    assert loss == 2e4
    np.testing.assert_array_equal(weights_grad, [[1.0], [-1.0]])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("inverse_regularization", [1.0, 0.01])
def test_scikit_learn_s_probabilities_come_out_of_the_network(classes: int, inverse_regularization: float) -> None:
    data = clouds(classes)
    network, history = fit(replace(SKLEARN, C=inverse_regularization), data)
    pixels, labels = data.train.inputs.flatten(1).numpy() / 255, data.train.labels.numpy()
    peer = LogisticRegression(C=inverse_regularization).fit((pixels - 0.4) / 0.2, labels)
    expected = peer.predict_proba((data.test.inputs.flatten(1).numpy() / 255 - 0.4) / 0.2)
    answers = predict(network, data.test, CPU)
    np.testing.assert_allclose(answers.logits.softmax(1).numpy(), expected, atol=1e-5)
    assert expected.std(0).min() > 0.01
    assert [row.epoch for row in history] == [peer.n_iter_[0]]
    assert (history[0].test_loss, history[0].test_accuracy) == (answers.loss, answers.accuracy)


def test_scikit_learn_s_solver_says_when_it_was_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert fit(replace(SKLEARN, max_iter=2), clouds(3))[1][0].epoch == 2
    assert "stopped after max_iter=2 iterations" in caplog.text


@pytest.mark.parametrize(("classes", "present", "absent"), [(3, 2, "c"), (3, 1, "b"), (2, 1, "b")])
def test_scikit_learn_s_solver_needs_every_class(classes: int, present: int, absent: str) -> None:
    with pytest.raises(RunFailed, match=f"needs an image of every class; '{absent}' has none"):
        fit(SKLEARN, clouds(classes, present))


def test_descent_in_numpy_comes_close_to_scikit_learn_s_optimum() -> None:
    data = clouds(3)
    # C weighs the summed loss, weight_decay is beside the mean one: C = 1/60 is a weight_decay of 60/120
    trainer = replace(NUMPY, epochs=300, batch_size=120, lr=0.3, weight_decay=0.5)
    network, history = fit(trainer, data)
    peer, _ = fit(replace(SKLEARN, C=1 / 60), data)
    ours, theirs = (predict(fitted, data.test, CPU).logits.softmax(1) for fitted in (network, peer))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert theirs.std(0).min() > 0.01
    assert history[-1].train_loss < history[0].train_loss
    assert [(row.epoch, row.images) for row in history] == [(epoch, 120) for epoch in range(1, 301)]
    assert (history[0].lr, history[150].lr, history[-1].lr) == pytest.approx((0.3, 0.15, 0.001))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (fit(NUMPY, clouds(3), seed)[0].network[1].weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_loss_that_is_lost_ends_the_run_and_names_the_learning_rate(epochs: int) -> None:
    trainer = replace(NUMPY, epochs=epochs, batch_size=1000, lr=1e39)
    with pytest.raises(RunFailed, match=r"diverged.*; try a smaller trainer\.lr"):
        fit(trainer, clouds(2))


@pytest.mark.parametrize("trainer", [NUMPY, SKLEARN], ids=["numpy", "sklearn"])
def test_another_model_is_refused_with_what_to_take(trainer: Trainer) -> None:
    trainer.check(Logistic(**MODEL))
    with pytest.raises(ValueError, match=r"only, not Mlp; use model=logistic or trainer=default$"):
        trainer.check(Mlp(**MODEL, hidden=[4], dropout=0.0))


def test_the_design_matrix_holds_normalised_pixels_in_the_order_of_the_split() -> None:
    data = clouds(2)
    network = Logistic(**MODEL).build(InputSpec(data.shape, 2, mean=(0.4,), std=(0.2,)))
    features, labels = design_matrix(network, data.train)
    np.testing.assert_allclose(features, (data.train.inputs.flatten(1).numpy() / 255 - 0.4) / 0.2, rtol=1e-5)
    np.testing.assert_array_equal(labels, data.train.labels)


BAD_VALUES: dict[str, dict[str, list[Any]]] = {
    "numpy": {
        "epochs": [0, 0.5],
        "batch_size": [0, None],
        "lr": [0.0, -1.0, inf, nan],
        "weight_decay": [-0.1, inf, nan, "some"],
    },
    "sklearn": {"C": [0.0, -1.0, nan], "max_iter": [0, -5]},
}


@pytest.mark.parametrize(("name", "trainer"), [("numpy", NumpyTrainer), ("sklearn", SklearnTrainer)])
def test_every_bad_value_is_refused_by_its_key(name: str, trainer: type) -> None:
    assert list(BAD_VALUES[name]) == [field.name for field in fields(trainer)]
    for key, values in BAD_VALUES[name].items():
        for value in values:
            with pytest.raises(InputError, match=rf"^trainer\.{key}: "):
                build(OmegaConf.merge(YAMLS[name], {key: value}), "trainer")
