"""The ensemble: as strong as the library of its authors, and stronger than each of its parts."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.attempts import AttackState
from trustml_cli.attacks.standard import Standard
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]
EPSILONS = {Norm.linf: 0.1, Norm.l2: 0.7, Norm.l1: 2.0}
PEER = {Norm.linf: "Linf", Norm.l2: "L2", Norm.l1: "L1"}


def standard(norm: Norm, target: int | None = None, steps: int = 20, queries: int = 100, targets: int = 9) -> Standard:
    return Standard(
        norm=norm, target=target, steps=steps, restarts=1, targets=targets, queries=queries, rho=0.75, area=0.8
    )


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "norm", [Norm.linf, *(pytest.param(norm, marks=pytest.mark.faults) for norm in Standard.norms if norm != Norm.linf)]
)
def test_no_more_images_stand_than_with_the_authors_library(norm: Norm, digits: Digits) -> None:
    from pyautoattack import AutoAttack

    model, x, y = digits[0], digits[1][:60], digits[2][:60]
    peer = AutoAttack(model, norm=PEER[norm], eps=EPSILONS[norm], seed=0)
    for part in (peer.apgd, peer.apgd_targeted, peer.fab):
        part.n_iter = part.n_iter_orig = 20  # in L1 its Auto-PGD runs from five starts and towards five classes
    peer.apgd.n_iter_2 = peer.apgd_targeted.n_iter_2 = 4
    peer.square.n_queries = 100
    with seeded(0):
        theirs = (model(peer.run_standard_evaluation(x, y)[0]).argmax(1) == y).double().mean()
    with seeded(0):
        ours = (model(standard(norm)(model, x, y, EPSILONS[norm])).argmax(1) == y).double().mean()
    assert 0.05 < theirs < 0.9
    assert ours <= theirs + 0.002


def test_each_part_takes_on_what_the_others_left(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = digits
    left: list[tuple[str, int]] = []
    attack = standard(Norm.linf)
    for part in {type(part) for part in attack.attacks()}:

        def noting(self, state: AttackState, epsilon: float, attack=part.attack_remaining) -> None:
            left.append((type(self).__name__, len(state.left)))
            attack(self, state, epsilon)

        monkeypatch.setattr(part, "attack_remaining", noting)
    with seeded(0):
        x_adv = attack(model, x, y, 0.1)
    names, counts = zip(*left, strict=True)
    assert names == ("APGD", "APGD", "FAB", "Square")
    assert counts[0] == len(x) > counts[1] >= counts[2] >= counts[3] >= (model(x_adv).argmax(1) == y).sum() > 0


def test_where_gradients_are_masked_the_part_without_gradients_gets_through(digits: Digits) -> None:
    class Masked(nn.Module):
        """The same answers, with steps that no gradient passes."""

        def forward(self, x: Tensor) -> Tensor:
            return digits[0](x) + 0 * x.sum() if not torch.is_grad_enabled() else digits[0](x.detach()) + 0 * x.sum()

    _, x, y = digits
    with seeded(0):
        x_adv = standard(Norm.linf, queries=300, steps=5)(Masked(), x, y, 0.15)
    assert (digits[0](x_adv).argmax(1) == y).double().mean() < 0.6


def test_a_target_alone_counts(digits: Digits) -> None:
    model, x, y = digits
    others = y != 8
    with seeded(0):
        x_adv = standard(Norm.l2, target=8)(model, x[others], y[others], 1.5)
    assert (model(x_adv).argmax(1) == 8).double().mean() > 0.5


def test_a_key_that_a_part_refuses_is_refused() -> None:
    for key in ("steps", "queries", "targets"):
        with pytest.raises(ValueError, match=rf"^{key}: must be at least 1( \(or null\))?, got 0"):
            standard(Norm.linf, **{key: 0})
