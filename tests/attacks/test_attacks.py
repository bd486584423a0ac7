"""Every attack in conf/attack, in every norm that it takes: one table for all."""

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from tests.configs import choice, choices
from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.measure import sizes, within_budget
from trustml_cli.build import build
from trustml_cli.errors import InputError

EPSILONS = {Norm.linf: 0.1, Norm.l2: 1.0}


def attacks_in(norm: str, **changes: object) -> list[Attack]:
    built = []
    for name in choices("attack"):
        try:
            built.append(build(choice("attack", name, norm=norm, **changes), "attack"))
        except InputError as error:
            if "attack.norm" not in str(error):  # an attack that its paper does not give in this norm says so
                raise
    return built


CASES = [
    pytest.param(attack, id=f"{type(attack).__name__}-{norm.value}")
    for norm in Norm
    for attack in attacks_in(norm.value)
]


@pytest.mark.parametrize("attack", CASES)
def test_images_stay_in_range_and_budget(attack: Attack, model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    for epsilon in (0.0, 0.01, 0.3, 2.0):
        x_adv = attack(model, x, y, epsilon)
        assert within_budget(x_adv, x, epsilon, attack.norm.value), epsilon
        assert x_adv.dtype == x.dtype
        assert not x_adv.requires_grad
    assert torch.equal(attack(model, x, y, 0.0), x)


@pytest.mark.parametrize("attack", CASES)
def test_most_images_fall_and_random_noise_of_the_same_size_does_less(
    attack: Attack, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    epsilon = EPSILONS[attack.norm]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    noise = noise.sign() if attack.norm is Norm.linf else noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    fell = (model(attack(model, x, y, epsilon)).argmax(1) != y).double().mean()
    fell_to_noise = (model((x + epsilon * noise).clamp(0, 1)).argmax(1) != y).double().mean()
    assert fell > 0.5
    assert fell > fell_to_noise + 0.3


@pytest.mark.parametrize("norm", list(Norm))
def test_a_targeted_attack_makes_its_target_likelier(
    norm: Norm, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    for target in range(3):
        for attack in attacks_in(norm.value, target=target):
            others = y != target
            before = model(x).softmax(1)[others, target]
            after = model(attack(model, x, y, EPSILONS[norm])).softmax(1)[others, target]
            assert (after > before).double().mean() > 0.95


@pytest.mark.parametrize("attack", CASES)
def test_a_curve_gives_the_images_of_single_calls(
    attack: Attack, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    epsilons = [0.0, 0.05, 0.2]
    for epsilon, x_adv in zip(epsilons, attack.curve(model, *images, epsilons), strict=True):
        assert torch.equal(x_adv, attack(model, *images, epsilon))


@pytest.mark.parametrize("name", choices("attack"))
def test_an_unknown_norm_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"attack\.norm.*linf"):
        build(DictConfig({**choice("attack", name), "norm": "l3"}), "attack")


def test_sizes_worked_out_by_hand() -> None:
    perturbation = torch.tensor([[[[3.0, 0.0], [0.0, -4.0]]]])
    assert [size.tolist() for size in sizes(perturbation)] == [[2.0], [5.0], [4.0]]
