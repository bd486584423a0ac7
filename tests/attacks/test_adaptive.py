"""EOT and BPDA: networks that withstand an attack which does not know them, and fall to one that does."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.adaptive import Backward, Expectation, adaptive_view
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.losses import Loss
from trustml_cli.attacks.measure import attack_curve
from trustml_cli.attacks.pgd import PGD
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]


class Masked(nn.Module):
    """Shows the network a random half of the pixels, twice as bright."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x * (torch.rand_like(x) < 0.5)


class Rounded(nn.Module):
    """Whole multiples of a third, by rounding: the gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (3 * x).round() / 3


class Detached(Rounded):
    """The same, as if computed by another library: there is no gradient, but one knows what is near."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())

    def stand_in(self, x: Tensor) -> Tensor:
        return x


PGD_10 = PGD(
    norm=Norm.linf, target=None, loss=Loss.ce, steps=10, step_size=None, rel_path_length=2.5, random_start=True,
    restarts=1,
)  # fmt: skip


def left(
    model: nn.Module, digits: Digits, attack: FGSM | PGD, draws: int = 1, backward: str = "exact", epsilon: float = 0.25
) -> float:
    """The accuracy under the attack, and a check that queries count every pass."""
    _, x, y = digits
    with seeded(0):
        asked = adaptive_view(model, draws, Backward(backward))
        curve = attack_curve(model, attack, [(x, y)], [epsilon], keep=0, asked=asked)
    (attacked,) = curve.attacked
    assert attacked.queries == draws * (1 if isinstance(attack, FGSM) else 10)
    assert curve.asked is not None
    assert ("mean of" in curve.asked.which) is (draws > 1)
    return (attacked.answers.predicted == curve.labels).double().mean().item()


def test_the_mean_of_many_answers_breaks_a_randomised_network_that_one_answer_does_not(digits: Digits) -> None:
    model = nn.Sequential(Masked(), digits[0]).eval()
    attack = FGSM(norm=Norm.linf, target=None)
    assert left(model, digits, attack, epsilon=0.15) > 0.35
    assert left(model, digits, attack, draws=30, epsilon=0.15) < 0.25


@pytest.mark.parametrize(("layer", "backward"), [(Rounded(), "identity"), (Detached(), "stand_in")])
def test_a_stand_in_for_the_backward_pass_breaks_a_network_that_quantises(
    layer: nn.Module, backward: str, digits: Digits
) -> None:
    model = nn.Sequential(layer, digits[0]).eval()
    clean = (model(digits[1]).argmax(1) == digits[2]).double().mean().item()
    assert clean > 0.8
    if backward == "identity":  # the other network gives no gradient at all
        assert left(model, digits, PGD_10) > clean - 0.3
    assert left(model, digits, PGD_10, backward=backward) < 0.1
    assert left(model, digits, PGD_10, draws=2, backward=backward) < 0.1


class RoundedInPlace(Rounded):
    """The same, in place."""

    def forward(self, x: Tensor) -> Tensor:
        return (3 * x).round_() / 3


class RoundedByName(Rounded):
    """The same, with every argument named."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(input=3 * x, decimals=0) / 3


@pytest.mark.parametrize(
    ("layer", "backward"),
    [
        (Rounded(), "identity"),
        (RoundedInPlace(), "identity"),
        (RoundedByName(), "identity"),
        (Detached(), "stand_in"),
    ],
    ids=["rounded", "in place", "by name", "stand-in"],
)
def test_only_the_gradient_is_another(layer: nn.Module, backward: str, digits: Digits) -> None:
    model = nn.Sequential(layer, digits[0]).eval()
    asked = adaptive_view(model, 1, Backward(backward))
    assert asked is not None
    x = digits[1][:5].clone().requires_grad_(True)
    logits = asked.network(x)
    torch.testing.assert_close(logits, model(x), rtol=0, atol=1e-6)
    rounded = Rounded()(x).detach().requires_grad_(True)
    slope, wanted = (torch.autograd.grad(one.sum(), by)[0] for one, by in ((logits, x), (digits[0](rounded), rounded)))
    torch.testing.assert_close(slope, wanted)
    assert all(not layer._forward_hooks for layer in model.modules())


def test_an_expectation_is_the_mean_of_the_answers() -> None:
    class Counting(nn.Module):
        asked = 0

        def forward(self, x: Tensor) -> Tensor:
            self.asked += 1
            return self.asked * x

    assert Expectation(Counting(), 4)(torch.ones(1, 2)).tolist() == [[2.5, 2.5]]


def test_without_either_there_is_nothing_to_ask_instead_and_a_missing_stand_in_is_named(digits: Digits) -> None:
    assert adaptive_view(digits[0], 1, Backward.exact) is None
    with pytest.raises(ValueError, match=r"^backward: no layer of this network has a method stand_in"):
        adaptive_view(digits[0], 1, Backward.stand_in)
