"""The exact smallest perturbation of a linear model: no solver and no attack finds a smaller one."""

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.solvers import solved
from tests.configs import choice, choices
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.linear import LinearOptimum
from trustml_cli.attacks.measure import sizes
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.config.instantiate import build
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded

QUICK = {"steps": 20, "queries": 30, "rounds": 3, "constant": 1.0, "epochs": 1, "labels": 150}


def optimum(norm: Norm) -> LinearOptimum:
    return LinearOptimum(norm=norm, target=None)


@pytest.fixture
def images(linear_model: nn.Module) -> tuple[Tensor, Tensor]:
    """Images with many values at 0 or 1, and the classes that the model sees in them."""
    x = (1.6 * torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(1)) - 0.3).clamp(0, 1)
    return x, linear_model(x).argmax(1)


@pytest.mark.parametrize("norm", [Norm.linf, Norm.l2, Norm.l1])
def test_no_solver_finds_a_smaller_one(norm: Norm, linear_model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    x_adv = optimum(norm).smallest(linear_model, x, y)
    assert (linear_model(x_adv).argmax(1) != y).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    weights, logits = linear_model[1].weight.double(), linear_model(x).double()
    for number, label in enumerate(y.tolist()):
        others = [k for k in range(3) if k != label]
        theirs = min(
            solved(
                x[number].flatten().double(),
                weights[k] - weights[label],
                logits[number, label] - logits[number, k],
                norm,
            )
            for k in others
        )
        assert sizes(x_adv - x)[norm][number].item() == pytest.approx(theirs, abs=1e-5)


def test_in_l0_one_value_less_is_not_enough(linear_model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    x_adv = optimum(Norm.l0).smallest(linear_model, x, y)
    assert (linear_model(x_adv).argmax(1) != y).all()
    weights, logits = linear_model[1].weight, linear_model(x)
    for number, label in enumerate(y.tolist()):
        fewer = int(sizes(x_adv - x)[Norm.l0][number]) - 1
        for k in range(3):
            normal = weights[k] - weights[label]
            gains = torch.where(normal > 0, normal * (1 - x[number].flatten()), -normal * x[number].flatten())
            most = gains.sort(descending=True).values[:fewer].sum()
            assert k == label or most < logits[number, label] - logits[number, k]


@pytest.mark.parametrize("norm", list(Norm))
def test_no_other_attack_is_smaller(norm: Norm, linear_model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    best = sizes(optimum(norm).smallest(linear_model, x, y) - x)[norm]
    references = []
    for name in choices("attack"):
        node = choice("attack", name)
        quick = {key: value for key, value in QUICK.items() if key in node}
        try:
            references.append(build(choice("attack", name, norm=norm.value, **quick), "attack").fit(linear_model, x, y))
        except InputError:
            continue
    for reference in references:
        with seeded(0):
            if isinstance(reference, SmallestPerturbation):
                found = reference.smallest(linear_model, x, y)
                fell = linear_model(found).argmax(1) != y
                assert (sizes(found - x)[norm] >= best - 1e-5)[fell].all(), reference
                continue
            for image in range(2):  # a budget just below the optimum is never enough
                one, least = slice(image, image + 1), best[image].item()
                epsilon = 0.95 * least if norm is not Norm.l0 else least - 1
                assert linear_model(reference(linear_model, x[one], y[one], epsilon)).argmax(1) == y[one], reference
    assert len(references) > 1


@pytest.mark.parametrize("norm", list(Norm))
def test_a_budget_of_the_optimum_is_enough(norm: Norm, linear_model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    for image, least in enumerate(sizes(optimum(norm).smallest(linear_model, x, y) - x)[norm].tolist()):
        one = slice(image, image + 1)
        assert linear_model(optimum(norm)(linear_model, x[one], y[one], 1.0001 * least)).argmax(1) != y[one]
        assert linear_model(optimum(norm)(linear_model, x[one], y[one], 0.999 * least)).argmax(1) == y[one]


def test_an_image_without_any_adversarial_comes_back_as_it_is() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[1.0] * 4, [0.0] * 4]))
    model[1].bias.copy_(torch.tensor([1.0, 0.0]))
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.long)
    for norm in Norm:
        assert torch.equal(optimum(norm).smallest(model, x, y), x)


def test_normalisation_before_the_linear_layer_is_folded_in(images: tuple[Tensor, Tensor]) -> None:
    class Normalise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - 0.3) / 0.2

    torch.manual_seed(4)
    model = nn.Sequential(Normalise(), nn.Flatten(), nn.Linear(108, 3)).requires_grad_(False)
    x = images[0]
    y = model(x).argmax(1)
    x_adv = optimum(Norm.l2).smallest(model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    halfway = x + 0.98 * (x_adv - x)
    assert (model(halfway).argmax(1) == y).all()


def test_a_model_that_is_not_linear_is_refused(model: nn.Module, linear_model: nn.Module) -> None:
    optimum(Norm.l2).check(linear_model, (3, 6, 6))
    with pytest.raises(ValueError, match=r"needs a linear model, such as model=logistic"):
        optimum(Norm.l2).check(model, (3, 6, 6))


def test_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^target: must be null, got 2"):
        LinearOptimum(norm=Norm.l2, target=2)
