"""Each calibrator against a closed form, its optimality conditions, or scikit-learn."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression as Sklearn
from torch import Tensor
from torch.nn import functional

from trustml_cli.calibration.calibrator import Calibration, FittedCalibrator
from trustml_cli.calibration.isotonic import IsotonicRegression
from trustml_cli.calibration.temperature import COLDEST, HOTTEST, TemperatureScaling, best_temperature
from trustml_cli.calibration.vector import VectorScaling

TEMPERATURE = TemperatureScaling(validation_images=100)
VECTOR = VectorScaling(validation_images=100, penalty=0.0)
ISOTONIC = IsotonicRegression(validation_images=100)


@pytest.fixture
def validation() -> tuple[Tensor, Tensor]:
    """Logits [400, 4] that are three times as large as they should be, and labels."""
    random = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(400, 4, generator=random).double()
    return 3 * logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]


def fitted(calibrator: FittedCalibrator, logits: Tensor, labels: Tensor) -> Calibration:
    module = calibrator.calibration()
    assert module(logits) is logits, "not fitted, it changes nothing"
    module.load_state_dict(calibrator.fit(logits, labels))
    return module


@pytest.mark.parametrize(("right", "gap"), [(75, 4.0), (95, 1.0), (60, 9.0)])
def test_the_temperature_of_two_classes_is_the_one_by_hand(right: int, gap: float) -> None:
    logits = torch.tensor([[gap, 0.0]]).double().repeat(100, 1)
    labels = (torch.arange(100) >= right).long()
    share = right / 100  # sigmoid(gap / T) must be this share
    assert best_temperature(logits, labels) == pytest.approx(gap / log(share / (1 - share)), rel=1e-8)


def test_the_temperature_is_the_minimum_that_scipy_finds(validation: tuple[Tensor, Tensor]) -> None:
    logits, labels = validation

    def loss(inverse: float) -> float:
        return functional.cross_entropy(inverse * logits, labels).item()

    expected = 1 / minimize_scalar(loss, bracket=(0.2, 1.0), tol=1e-10).x
    assert expected == pytest.approx(3, rel=0.2)
    assert best_temperature(logits, labels) == pytest.approx(expected, rel=1e-5)
    assert best_temperature(1000 * logits - 5, labels) == pytest.approx(HOTTEST)
    assert COLDEST <= best_temperature(logits.scatter(1, labels[:, None], 99.0), labels) < 0.2
    impossible = logits.scatter(1, (labels[:, None] + 1) % 4, -torch.inf)
    assert 0.1 < best_temperature(impossible, labels) < 10


def test_a_temperature_divides_the_logits(validation: tuple[Tensor, Tensor]) -> None:
    logits, labels = validation
    module = fitted(TEMPERATURE, logits, labels)
    torch.testing.assert_close(module(logits) * best_temperature(logits, labels), logits, rtol=1e-6, atol=0)


def test_vector_scaling_meets_the_conditions_of_its_optimum(validation: tuple[Tensor, Tensor]) -> None:
    logits, labels = validation
    wanted = functional.one_hot(labels, 4).double()
    before = functional.cross_entropy(fitted(TEMPERATURE, logits, labels)(logits), labels)
    module = fitted(VECTOR, logits, labels)
    residual = module(logits).softmax(1) - wanted
    assert residual.mean(0).abs().max() < 1e-4
    assert (residual * logits).mean(0).abs().max() < 1e-3
    assert (logits.softmax(1) - wanted).mul(logits).mean(0).abs().max() > 0.1
    assert functional.cross_entropy(module(logits), labels) < before
    held = fitted(VectorScaling(validation_images=100, penalty=1e6), logits, labels)
    torch.testing.assert_close(held(logits), logits, rtol=0, atol=1e-3)


def test_isotonic_regression_is_sklearn_s_one_against_the_rest(validation: tuple[Tensor, Tensor]) -> None:
    logits, labels = validation
    module, unseen = fitted(ISOTONIC, logits, labels), torch.randn(50, 4) * 6
    probability = logits.float().softmax(1).double().numpy()
    columns = []
    for number in range(4):
        one = Sklearn(y_min=1 / 402 / 3, y_max=1 - 1 / 402, out_of_bounds="clip")
        one.fit(probability[:, number], (labels == number).numpy())
        columns.append(one.predict(unseen.softmax(1)[:, number].numpy()))
    expected = np.stack(columns, 1)
    expected /= expected.sum(1, keepdims=True)
    found = module(unseen).softmax(1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert found.min() > 0
    assert np.abs(found.numpy() - unseen.softmax(1).numpy()).max() > 0.1


def test_a_class_without_an_example_keeps_a_probability() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]]).double()
    module = fitted(ISOTONIC, logits, torch.tensor([0, 1]))
    assert module(logits.float()).isfinite().all()


@pytest.mark.parametrize("calibrator", [TEMPERATURE, VECTOR, ISOTONIC], ids=lambda one: type(one).__name__)
def test_what_is_learned_behind_a_network_is_reported_and_loaded_again(
    calibrator: FittedCalibrator, validation: tuple[Tensor, Tensor]
) -> None:
    network: Callable[[Tensor], Tensor] = torch.nn.Identity()
    logits, labels = (part.float() if part.is_floating_point() else part for part in validation)
    wrapped = calibrator.around(network, (4,))  # type: ignore[arg-type]
    (epoch,) = calibrator.learn(calibrator.part(wrapped), wrapped[0], logits, labels)
    answers = wrapped(logits)
    assert epoch.loss == pytest.approx(functional.cross_entropy(answers, labels).item(), rel=1e-5)
    assert epoch.loss < functional.cross_entropy(logits, labels) - 0.1
    assert epoch.accuracy == (answers.argmax(1) == labels).double().mean()
    again = calibrator.calibration()
    again.load_state_dict(calibrator.part(wrapped).state_dict())
    torch.testing.assert_close(again(logits), answers, rtol=0, atol=0)
