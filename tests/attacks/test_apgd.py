"""Auto-PGD against the code of its authors, and what it promises beyond that."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.apgd import APGD
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.losses import Loss, log_odds
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]
EPSILONS = {Norm.linf: 0.12, Norm.l2: 0.8, Norm.l1: 2.0}
PEER = {Norm.linf: "Linf", Norm.l2: "L2", Norm.l1: "L1"}


def apgd(norm: Norm, loss: Loss = Loss.ce, targets: int | None = None, steps: int = 40, restarts: int = 1) -> APGD:
    return APGD(norm=norm, target=None, loss=loss, steps=steps, restarts=restarts, rho=0.75, targets=targets)


def stands(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    return model(x_adv).argmax(1) == y


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", APGD.norms)
@pytest.mark.parametrize(
    ("loss", "targets"), [(Loss.ce, None), pytest.param(Loss.dlr, None, marks=pytest.mark.faults), (Loss.dlr, 9)]
)
def test_the_same_images_fall_as_with_the_authors_code(
    norm: Norm, loss: Loss, targets: int | None, digits: Digits
) -> None:
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    model, x, y = digits
    settings = {"n_iter": 40, "norm": PEER[norm], "eps": EPSILONS[norm], "seed": 5, "use_largereps": norm is Norm.l1}
    peer = APGDAttack(model, loss=loss.value, **settings) if targets is None else APGDAttack_targeted(model, **settings)
    with seeded(0):
        theirs = stands(model, peer.perturb(x, y), y)
    with seeded(5):
        ours = stands(model, apgd(norm, loss, targets)(model, x, y, EPSILONS[norm]), y)
    assert 0.05 < theirs.double().mean() < 0.9
    if targets is None:  # the same random start: the same run, image by image
        assert (ours != theirs).sum() <= 1
    assert ours.double().mean() <= theirs.double().mean() + 0.01


@pytest.mark.parametrize("norm", APGD.norms)
def test_the_dlr_loss_does_not_mind_a_model_that_is_sure_of_itself(norm: Norm, digits: Digits) -> None:
    model, x, y = digits
    sure = nn.Sequential(model, Scale(1e4))
    standing = {}
    for victim in (model, sure):
        for loss in Loss:
            with seeded(1):
                x_adv = apgd(norm, loss)(victim, x, y, EPSILONS[norm])
            standing[victim, loss] = stands(model, x_adv, y).double().mean().item()
    assert standing[sure, Loss.dlr] == pytest.approx(standing[model, Loss.dlr], abs=0.01)
    assert standing[sure, Loss.ce] <= standing[model, Loss.ce] + 0.05
    assert standing[sure, Loss.ce_float32] > standing[model, Loss.ce] + 0.2  # it is 0 there, and so is its slope


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return self.factor * logits


def test_steps_shrink_until_the_top_is_reached() -> None:
    class Hill(nn.Module):  # two classes; the loss of class 0 is highest at 0.6137
        def forward(self, x: Tensor) -> Tensor:
            score = -10 * (x.flatten(1) - 0.6137).square().sum(1)
            return torch.stack([torch.zeros_like(score), score], 1)

    x, y = torch.full((5, 1, 1, 1), 0.5), torch.zeros(5, dtype=torch.long)
    with seeded(0):
        x_adv = apgd(Norm.linf, steps=100)(Hill(), x, y, 0.3)
    torch.testing.assert_close(x_adv, torch.full_like(x, 0.6137), atol=1e-3, rtol=0)


def test_restarts_only_add_to_what_fell(digits: Digits) -> None:
    model, x, y = digits
    standing = []
    for restarts in (1, 8):
        with seeded(3):
            standing.append(stands(model, apgd(Norm.linf, restarts=restarts, steps=1)(model, x, y, 0.1), y))
    assert not (standing[1] & ~standing[0]).any()
    assert standing[1].sum() < standing[0].sum()


def test_what_stands_comes_back_as_near_to_the_goal_as_it_came(digits: Digits) -> None:
    model, x, y = digits
    with seeded(0):
        x_adv = apgd(Norm.linf)(model, x, y, 0.03)
    left = stands(model, x_adv, y)
    assert left.any()
    assert (log_odds(model(x_adv), y, None) > log_odds(model(x), y, None))[left].all()


def test_only_images_that_stand_are_asked_about(digits: Digits) -> None:
    model, x, y = digits
    asked: list[int] = []
    counting = nn.Sequential(model)
    counting.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    with seeded(0):
        x_adv = apgd(Norm.linf, Loss.dlr, targets=9)(counting, x, y, 0.12)
    left = int(stands(model, x_adv, y).sum())
    assert max(asked) <= len(x)  # several classes at once, but never more images than were given
    assert asked[-1] % left == 0
    assert sum(asked) < 41 * 9 * len(x)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("steps", 0, "steps: must be at least 1, got 0"),
        ("restarts", 0, "restarts: must be at least 1, got 0"),
        ("targets", 0, "targets: must be at least 1"),
        ("rho", 1.5, "rho: must be between 0 and 1, got 1.5"),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: float, words: str) -> None:
    values = {"norm": Norm.linf, "target": None, "loss": Loss.ce, "steps": 5, "restarts": 1, "rho": 0.75}
    with pytest.raises(ValueError, match=words):
        APGD(**{**values, "targets": None, key: value})
