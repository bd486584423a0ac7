"""Square: a search that never asks for a gradient, against the code of its authors."""

import math

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.measure import sizes
from trustml_cli.attacks.square import Square, move_mass, peak, peaks, pyramid, repaint, stripes
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]
PEER = {Norm.linf: "Linf", Norm.l2: "L2", Norm.l1: "L1"}


def square(norm: Norm, target: int | None = None, queries: int = 200, restarts: int = 1) -> Square:
    return Square(norm=norm, target=target, queries=queries, restarts=restarts, area=0.8)


class Opaque(nn.Module):
    """A model that counts the images that it is asked about and lets no gradient through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, []

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.asked.append(len(x))
        return self.model(x).detach()


@pytest.mark.parametrize("norm", Square.norms)
def test_it_needs_no_gradient_and_no_more_than_its_queries(norm: Norm, digits: Digits) -> None:
    model, x, y = digits
    opaque = Opaque(model)
    with seeded(0):
        x_adv = square(norm)(opaque, x, y, {Norm.linf: 0.15, Norm.l2: 1.0, Norm.l1: 3.0}[norm])
    stands = model(x_adv).argmax(1) == y
    assert 0.05 < stands.double().mean() < 0.7
    assert len(opaque.asked) == 1 + 200  # the images themselves, then the queries
    assert opaque.asked[-1] >= stands.sum() > opaque.asked[-1] - 5  # only those that stand are asked about
    assert opaque.asked == sorted(opaque.asked, reverse=True)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", Square.norms)
@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.faults)])
def test_as_few_stand_as_with_the_authors_code(norm: Norm, seeds: int, digits: Digits) -> None:
    from pyautoattack.square import SquareAttack

    model, x, y = digits
    epsilon = {Norm.linf: 0.12, Norm.l2: 0.8, Norm.l1: 3.0}[norm]
    ours, theirs = [], []
    for seed in range(seeds):
        peer = SquareAttack(
            model, norm=PEER[norm], n_queries=300, eps=epsilon, p_init=0.8, seed=seed,
            resc_schedule=False, device="cpu",
        )  # fmt: skip
        with seeded(seed):
            theirs.append((model(peer.perturb(x, y)).argmax(1) == y).double().mean())
        with seeded(seed):
            ours.append((model(square(norm, queries=300)(model, x, y, epsilon)).argmax(1) == y).double().mean())
    assert torch.stack(ours).mean() <= torch.stack(theirs).mean() + 0.03 / seeds


def test_the_first_images_and_the_proposals_use_the_budget() -> None:
    x = torch.full((6, 3, 12, 12), 0.5)
    with seeded(0):
        striped, peaked = stripes(x, 0.1), peaks(x, 1.0, Norm.l2)
        painted, moved = repaint(x, striped, 0.1, 5), move_mass(x, peaked, 1.0, 5, Norm.l2)
    assert ((striped - x).abs() - 0.1).abs().max() < 1e-6
    assert (striped == striped[:, :, :1]).all()
    changed = (painted != striped).flatten(1).sum(1)
    assert (changed <= 75).all()
    assert (changed > 0).any()
    for image in (peaked, moved):
        torch.testing.assert_close(sizes(image - x)[Norm.l2], torch.ones(6))
    untouched = (moved - x) / (peaked - x)  # all that is in neither of the squares is scaled by one number
    for values in untouched.flatten(1):
        common = values.round(decimals=4).mode().values
        assert ((values - common).abs() < 1e-3).double().mean() > 0.3


def test_pyramids_worked_out_by_hand() -> None:
    assert pyramid(1, 1, Norm.l2).tolist() == [[1]]
    torch.testing.assert_close(pyramid(1, 3, Norm.l1), torch.tensor([[0.0625, 1.0625, 0.0625]]))
    torch.testing.assert_close(pyramid(3, 3, Norm.l2), torch.tensor([[0.25] * 3, [0.25, 1.25, 0.25], [0.25] * 3]))
    torch.testing.assert_close(pyramid(1, 3, Norm.l2), torch.tensor([[0.25, 1.25, 0.25]]))


@pytest.mark.peers
@pytest.mark.parametrize("norm", [Norm.l2, Norm.l1])
def test_peaks_are_those_of_the_authors_code(norm: Norm) -> None:
    from pyautoattack.square import SquareAttack

    peer = SquareAttack(None, norm=PEER[norm], eps=1.0, device="cpu")
    for side in (1, 2, 3, 5, 8):
        with seeded(0):
            theirs = peer.eta(side)
        with seeded(0):
            torch.testing.assert_close(peak(side, torch.zeros(1), norm), theirs)


def test_squares_shrink_along_the_schedule() -> None:
    shares = [square(Norm.linf).share(query) for query in (0, 10, 11, 51, 501, 8001)]
    assert shares == [0.8, 0.8, 0.4, 0.2, 0.05, 0.8 / 2**9]
    assert math.isclose(shares[-1], 0.0015625)


def test_a_target_alone_counts(digits: Digits) -> None:
    model, x, y = digits
    others = y != 8
    with seeded(0):
        x_adv = square(Norm.linf, target=8)(model, x[others], y[others], 0.3)
    assert (model(x_adv).argmax(1) == 8).double().mean() > 0.5


@pytest.mark.parametrize(("key", "value"), [("queries", 0), ("restarts", 0), ("area", 0.0), ("area", 1.1)])
def test_values_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{key}: must be"):
        Square(**{"norm": Norm.linf, "target": None, "queries": 1, "restarts": 1, "area": 0.5, key: value})
