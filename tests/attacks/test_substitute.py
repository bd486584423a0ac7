"""A substitute: what it asks the victim, how well it copies it, and that what fools it fools the victim."""

from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tests.configs import choice
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.measure import QueryCounter
from trustml_cli.attacks.substitute import Substitute, TransferredAttack
from trustml_cli.attacks.universal_base import answers
from trustml_cli.config.instantiate import build
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]


def substitute(**changes: Any) -> Substitute:
    built: Substitute = build(
        choice("attack", "substitute", **{"training_images": 100, "rounds": 3, "substitutes": 2, **changes}), "attack"
    )
    return built


def fitted(attack: Substitute, model: nn.Module) -> TransferredAttack:
    own = torch.tensor(load_digits().images[: attack.training_images] / 16, dtype=torch.float)[:, None]
    with seeded(0):
        return attack.fit(model, own, torch.zeros(len(own), dtype=torch.long))  # true classes are of no use to it


def test_it_copies_the_victim_from_labels_and_its_images_fool_the_victim(digits: Digits) -> None:
    model, x, y = digits
    victim = QueryCounter(model)
    attack = fitted(substitute(training_images=200, rounds=2), victim)
    assert victim.queries == 200 * 2**2 + 1  # and one image to see how many classes there are
    assert victim.gradients == 0
    victim.queries = 0
    x_adv = attack(victim, x, y, 0.25)
    assert victim.queries == 0
    assert torch.equal(x_adv, attack.attack(attack.substitute, x, y, 0.25))
    assert attack.white_box == FGSM(norm=attack.norm, target=None)
    assert (answers(attack.substitute, x) == answers(model, x)).double().mean() > 0.6  # of ten classes
    noisy = (x + 0.25 * torch.randn_like(x).sign()).clamp(0, 1)
    fell, to_noise = ((answers(model, images) != y).double().mean().item() for images in (x_adv, noisy))
    assert fell > to_noise + 0.3, (fell, to_noise)


def test_more_rounds_copy_better(digits: Digits) -> None:
    model, x, _ = digits
    agree = [
        (answers(fitted(substitute(training_images=30, rounds=rounds), model).substitute, x) == answers(model, x))
        .double()
        .mean()
        for rounds in (0, 4)
    ]
    assert agree[1] > agree[0] + 0.1, agree


def test_the_attack_is_momentum_fgsm_on_the_mean_of_the_substitutes_logits(digits: Digits) -> None:
    model, x, y = digits
    attack = fitted(substitute(rounds=0, epochs=2, steps=5), model)
    networks = list(attack.substitute.classifiers)
    assert len(networks) == 2
    torch.testing.assert_close(attack.substitute(x), (networks[0](x) + networks[1](x)) / 2)
    pools = [any(isinstance(layer, nn.MaxPool2d) for layer in network) for network in networks]
    assert pools == [False, True]
    mifgsm = build(choice("attack", "mifgsm", steps=5), "attack")
    assert torch.equal(attack(model, x, y, 0.1), mifgsm(attack.substitute, x, y, 0.1))


def test_no_more_labels_are_asked_for_than_there_are_queries(digits: Digits) -> None:
    victim = QueryCounter(digits[0])
    fitted(substitute(training_images=60, rounds=5, labels=150, epochs=1), victim)
    assert victim.queries == 150 + 1


def test_it_is_for_images_and_is_trained_before_it_is_called(digits: Digits) -> None:
    with pytest.raises(ValueError, match="needs images of at least 4×4"):
        substitute().check(digits[0], (13,))
    with pytest.raises(RuntimeError, match="trained first"):
        substitute()(*digits, 0.1)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training_images", 0, "at least 1"), ("rounds", -1, "at least 0"), ("jump", 0.0, "above 0"),
        ("substitutes", 0, "at least 1"), ("steps", 0, "at least 1"),
        ("labels", 10, r"at least training_images \(100\)"), ("lr", 0.0, "above 0"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(key: str, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: must be {words}"):
        Substitute(**{**vars(substitute()), key: value})
