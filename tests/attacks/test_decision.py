"""HopSkipJump and the boundary attack against foolbox from the same starts, and what both are made of."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.boundary import ENOUGH, Boundary, Share, rotated
from trustml_cli.attacks.decision import DecisionBased, Oracle, halvings, noise
from trustml_cli.attacks.geometry import lengths
from trustml_cli.attacks.hop_skip_jump import HopSkipJump
from trustml_cli.attacks.measure import QueryCounter, sizes
from trustml_cli.attacks.smallest import Nearest
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]


def hop_skip_jump(norm: Norm = Norm.l2, queries: int = 1000) -> HopSkipJump:
    return HopSkipJump(norm=norm, target=None, queries=queries, evaluations=100)


def boundary(queries: int = 1000) -> Boundary:
    return Boundary(norm=Norm.l2, target=None, queries=queries, sphere_step=0.01, source_step=0.01)


def started(digits: Digits, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images, their classes, and images that are read as another class."""
    x, y = digits[1][:count], digits[2][:count]
    other = [next(i for i in range(len(digits[1])) if digits[2][i] != label) for label in y]
    return x, y, digits[1][other]


class Labels(nn.Module):
    """A network that tells no more than the class."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        logits: Tensor = self.model(x)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


ATTACKS = [
    pytest.param(hop_skip_jump, id="hop_skip_jump-l2"),
    pytest.param(lambda queries=1000: hop_skip_jump(Norm.linf, queries), id="hop_skip_jump-linf"),
    pytest.param(boundary, id="boundary"),
]


@pytest.mark.parametrize("make", ATTACKS)
def test_the_class_alone_is_enough_and_no_more_is_asked_than_allowed(
    make: Callable[..., DecisionBased], digits: Digits
) -> None:
    model, x, y = digits[0], digits[1][:10], digits[2][:10]
    found = {}
    for queries in (1, 20, 150, 600):
        asked = QueryCounter(Labels(model))
        with seeded(0):
            found[queries] = make(queries=queries).smallest(asked, x, y)
        assert asked.queries <= len(x) * (queries + 1)  # once more, to see what is read right
    fell = (model(found[600]).argmax(1) != y) & (model(found[150]).argmax(1) != y)
    assert fell.double().mean() > 0.8
    size = {queries: sizes(one - x)[make().norm][fell].mean() for queries, one in found.items()}
    assert size[600] < 0.9 * size[150]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", HopSkipJump.norms)
def test_hop_skip_jump_comes_as_near_as_that_of_foolbox(norm: Norm, digits: Digits) -> None:
    from foolbox import PyTorchModel, attacks

    asked = QueryCounter(digits[0]).eval()
    x, y, start = started(digits, 15)
    peer = attacks.HopSkipJumpAttack(steps=4, constraint=norm.value)
    with seeded(0):
        theirs = peer.run(PyTorchModel(asked, bounds=(0, 1), device="cpu"), x, y, starting_points=start)
    as_near(hop_skip_jump(norm), digits[0], x, y, start, theirs, asked.queries // len(x))


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_boundary_attack_comes_as_near_as_that_of_foolbox(digits: Digits) -> None:
    from foolbox import PyTorchModel, attacks

    asked = QueryCounter(digits[0]).eval()
    x, y, start = started(digits, 10)
    with seeded(0):
        theirs = attacks.BoundaryAttack(steps=600).run(
            PyTorchModel(asked, bounds=(0, 1), device="cpu"), x, y, starting_points=start
        )
    as_near(boundary(), digits[0], x, y, start, theirs, asked.queries // len(x))


def as_near(
    attack: DecisionBased, model: nn.Module, x: Tensor, y: Tensor, start: Tensor, theirs: Tensor, queries: int
) -> None:
    """From the same start and with as many queries, ours comes as near as theirs on average."""
    nearest = Nearest(start, attack.size(start - x))
    with seeded(0), torch.no_grad():
        attack.walk(Oracle(model, y), x, nearest, queries)
    assert (model(nearest.images).argmax(1) != y).all()
    far, ours, peer = (sizes(images - x)[attack.norm].mean() for images in (start, nearest.images, theirs))
    assert ours <= 1.02 * peer
    assert peer < 0.7 * far


@pytest.mark.parametrize("norm", HopSkipJump.norms)
def test_bisection_ends_at_the_boundary_on_the_far_side(norm: Norm) -> None:
    class Half(nn.Module):  # class 1 where the first value is above 0.6
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([torch.zeros(len(x)), x.flatten(1)[:, 0] - 0.6], 1)

    x, far = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.9, 0.4]]]])
    oracle = Oracle(Half(), torch.tensor([0]))
    ended = hop_skip_jump(norm).bisect(oracle, x, far, halvings(1e-4)).flatten()
    assert 0.6 < ended[0].item() < 0.6002
    assert ended[1].item() == pytest.approx(0.4 * 0.6 / 0.9 if norm is Norm.l2 else 0.4, abs=1e-3)


def test_the_normal_of_a_plane_is_found_from_decisions() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with seeded(0):
        model[1].weight.data = torch.randn(2, 16)
        x = torch.full((3, 1, 4, 4), 0.5)
        plane = model[1].weight[1] - model[1].weight[0]
        x = x - ((x.flatten(1) @ plane) / plane.square().sum()).view(3, 1, 1, 1) * plane.view(
            1, 1, 4, 4
        )  # on the plane
        with torch.no_grad():
            found = hop_skip_jump().normal(Oracle(model, torch.zeros(3).long()), x, torch.full((3,), 0.01), 2000)
    assert (nn.functional.cosine_similarity(found.flatten(1), plane[None]) > 0.9).all()


def test_random_points_on_the_sphere_keep_the_distance() -> None:
    x = torch.full((5, 1, 4, 4), 0.5)
    with seeded(0):
        x_adv = x + 0.1 * torch.randn_like(x)
        moved = rotated(x, x_adv, lengths(x_adv - x), torch.full((5,), 0.1))
    torch.testing.assert_close(lengths(moved - x), lengths(x_adv - x))
    torch.testing.assert_close(lengths(moved - x_adv) / lengths(x_adv - x), torch.full((5,), 0.1), rtol=0.01, atol=0)


def test_a_step_size_follows_the_share_of_answers() -> None:
    share, yes = Share(torch.zeros(3)), torch.tensor([0, 3, 9])
    factors = [share.factor(number < yes, 0.2, 0.5).tolist() for number in range(ENOUGH)]
    assert factors[:-1] == [[1, 1, 1]] * (ENOUGH - 1)
    assert factors[-1] == pytest.approx([1 / 1.5, 1, 1.5])
    assert share.all.tolist() == [0, 0, 0]


def test_random_starts_have_squares_of_growing_size() -> None:
    x = torch.zeros(2, 3, 8, 8)
    with seeded(0):
        drawn = [noise(x, number) for number in range(5)]
    assert [len(one[0, 0].unique()) for one in drawn] == [64, 16, 4, 1, 64]
    assert all(one.min() >= 0 and one.max() <= 1 for one in drawn)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: hop_skip_jump(queries=0), "queries: must be at least 1, got 0"),
        (lambda: HopSkipJump(norm=Norm.l2, target=None, queries=9, evaluations=1), "evaluations: must be at least 5"),
        (lambda: HopSkipJump(norm=Norm.l2, target=3, queries=9, evaluations=9), "target: must be null, got 3"),
        (
            lambda: Boundary(norm=Norm.l2, target=None, queries=9, sphere_step=2, source_step=0.1),
            "sphere_step: must be",
        ),
    ],
)
def test_values_out_of_range_are_refused(build: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        build()  # type: ignore[operator]
