"""Every attack in conf/attack, in every norm that it takes: one table for all."""

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from tests.configs import choice, choices
from trustml_cli.attacks.attack import Attack, Norm, Sees
from trustml_cli.attacks.geometry import random_start
from trustml_cli.attacks.measure import sizes, within_budget
from trustml_cli.build import build
from trustml_cli.errors import InputError
from trustml_cli.hardware import own_randomness

EPSILONS = {Norm.linf: 0.1, Norm.l2: 1.0, Norm.l1: 6.0, Norm.l0: 8.0}  # of 108 values


def attacks_in(norm: str, **changes: object) -> list[Attack]:
    built = []
    for name in choices("attack"):
        try:
            built.append(build(choice("attack", name, norm=norm, **changes), "attack"))
        except InputError as error:
            if not str(error).startswith(("attack.norm: must be one of", "attack.target: noise")):
                raise  # anything but an attack without this norm, or without any target
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
        assert within_budget(x_adv, x, epsilon, attack.norm), epsilon
        assert x_adv.dtype == x.dtype
        assert not x_adv.requires_grad
    assert torch.equal(attack(model, x, y, 0.0), x)


@pytest.mark.parametrize("attack", [case for case in CASES if case.values[0].sees is not Sees.nothing])
def test_most_images_fall_and_random_noise_of_the_same_size_does_less(
    attack: Attack, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    epsilon = EPSILONS[attack.norm]
    with own_randomness(2):
        noisy = random_start(x, epsilon, attack.norm)
        fell = (model(attack(model, x, y, epsilon)).argmax(1) != y).double().mean()
    fell_to_noise = (model(noisy).argmax(1) != y).double().mean()
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
    with own_randomness(4):
        curve = list(attack.curve(model, *images, epsilons))
    with own_randomness(4):
        for epsilon, x_adv in zip(epsilons, curve, strict=True):
            assert torch.equal(x_adv, attack(model, *images, epsilon))


@pytest.mark.parametrize("name", choices("attack"))
def test_an_unknown_norm_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"attack\.norm.*linf"):
        build(DictConfig({**choice("attack", name), "norm": "l3"}), "attack")


def test_sizes_worked_out_by_hand() -> None:
    perturbation = torch.tensor([[[[3.0, 0.0], [0.0, -4.0]]]])
    by_hand = {Norm.linf: [4.0], Norm.l2: [5.0], Norm.l1: [7.0], Norm.l0: [2.0]}
    assert {norm: size.tolist() for norm, size in sizes(perturbation).items()} == by_hand


@pytest.mark.parametrize("attack", CASES)
def test_an_image_is_attacked_as_if_it_were_alone(
    attack: Attack, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images[0][:8], images[1][:8]
    epsilon = EPSILONS[attack.norm]
    with own_randomness(3):
        first = attack(model, x, y, epsilon)
        if not torch.equal(first, attack(model, x, y, epsilon)):
            pytest.skip("draws random numbers, in the order of the batch")
    alone = torch.cat([attack(model, x[i : i + 1], y[i : i + 1], epsilon) for i in range(len(x))])
    torch.testing.assert_close(first, alone, atol=1e-5, rtol=0)
