"""FMN, DDN, EAD and JSMA against foolbox and ART, on the same network and with the same steps."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.ddn import DDN
from trustml_cli.attacks.ead import EAD, Rule, shrink
from trustml_cli.attacks.fmn import FMN
from trustml_cli.attacks.jsma import JSMA
from trustml_cli.attacks.linear import LinearOptimum
from trustml_cli.attacks.measure import sizes
from trustml_cli.attacks.smallest import Nearest, SmallestPerturbation

Digits = tuple[nn.Module, Tensor, Tensor]


def fmn(norm: Norm, target: int | None = None, steps: int = 60) -> FMN:
    return FMN(norm=norm, target=target, steps=steps, step_size=1.0, rate=0.05)


def ddn(target: int | None = None, steps: int = 60) -> DDN:
    return DDN(norm=Norm.l2, target=target, steps=steps, step_size=1.0, start_radius=1.0, rate=0.05)


def ead(target: int | None = None, steps: int = 40, rule: Rule = Rule.l1, rounds: int = 4, lr: float = 0.05) -> EAD:
    return EAD(
        norm=Norm.l1, target=target, rounds=rounds, steps=steps, lr=lr, constant=0.3, beta=0.01, confidence=0.0,
        rule=rule, abort_early=False,
    )  # fmt: skip


def jsma(theta: float = 1.0, target: int | None = None, distortion: float = 1.0) -> JSMA:
    return JSMA(norm=Norm.l0, target=target, theta=theta, distortion=distortion, targets=9)


def few(digits: Digits, target: int | None = None, count: int = 40) -> Digits:
    """The first `count` images that are not of the target class."""
    model, x, y = digits
    rows = torch.arange(len(y)) if target is None else (y != target).nonzero()[:, 0]
    return model, x[rows[:count]], y[rows[:count]]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", [None, 3])
@pytest.mark.parametrize("norm", FMN.norms)
def test_fmn_is_nowhere_larger_than_that_of_foolbox(norm: Norm, target: int | None, digits: Digits) -> None:
    from foolbox import PyTorchModel, attacks, criteria

    model, x, y = few(digits, target)
    kinds = {
        Norm.l2: attacks.L2FMNAttack, Norm.linf: attacks.LInfFMNAttack, Norm.l1: attacks.L1FMNAttack,
        Norm.l0: attacks.L0FMNAttack,
    }  # fmt: skip
    goal = criteria.Misclassification(y) if target is None else criteria.TargetedMisclassification(y * 0 + target)
    theirs = kinds[norm](steps=60).run(PyTorchModel(model, bounds=(0, 1), device="cpu"), x, goal)
    no_larger(model, fmn(norm, target).smallest(model, x, y), theirs, x, y, norm, target)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", [None, 3])
def test_ddn_equals_that_of_foolbox(target: int | None, digits: Digits) -> None:
    from foolbox import PyTorchModel, attacks, criteria

    model, x, y = few(digits, target)
    goal = criteria.Misclassification(y) if target is None else criteria.TargetedMisclassification(y * 0 + target)
    theirs = attacks.DDNAttack(steps=60).run(PyTorchModel(model, bounds=(0, 1), device="cpu"), x, goal)
    ours = ddn(target).smallest(model, x, y)
    near = (ours - theirs).flatten(1).abs().amax(1) < 1e-3  # a step at a kink of the network may part them
    assert near.double().mean() > 0.9
    no_larger(model, ours, theirs, x, y, Norm.l2, target)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("target", "rule"), [(None, Rule.l1), (3, Rule.l1), (None, Rule.elastic_net)])
def test_ead_equals_that_of_foolbox(target: int | None, rule: Rule, digits: Digits) -> None:
    from foolbox import PyTorchModel, attacks, criteria

    model, x, y = few(digits, target, count=20)
    goal = criteria.Misclassification(y) if target is None else criteria.TargetedMisclassification(y * 0 + target)
    peer = attacks.EADAttack(
        binary_search_steps=4, steps=40, initial_stepsize=0.05, initial_const=0.3, regularization=0.01,
        decision_rule={Rule.l1: "L1", Rule.elastic_net: "EN"}[rule], abort_early=False,
    )  # fmt: skip
    theirs = peer.run(PyTorchModel(model, bounds=(0, 1), device="cpu"), x, goal)
    ours = ead(target, rule=rule).smallest(model, x, y)
    found = (theirs != 0).flatten(1).any(1)  # theirs is black where none was found
    near = (ours - theirs)[found].flatten(1).abs().amax(1) < 1e-3
    assert near.double().mean() > 0.9
    no_larger(model, ours[found], theirs[found], x[found], y[found], Norm.l1, target)


def no_larger(
    model: nn.Module, ours: Tensor, theirs: Tensor, x: Tensor, y: Tensor, norm: Norm, target: int | None
) -> None:
    """Ours reaches the goal wherever theirs does, and on average with no more than 1 % more."""
    mine, peer = (
        model(one).argmax(1) != y if target is None else model(one).argmax(1) == target for one in (ours, theirs)
    )
    assert peer.double().mean() > 0.5
    assert mine[peer].all()
    assert sizes(ours - x)[norm][peer].mean() <= 1.01 * sizes(theirs - x)[norm][peer].mean()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("theta", [1.0, 0.3])
def test_jsma_changes_no_more_values_than_that_of_art(theta: float, digits: Digits) -> None:
    from art.attacks.evasion import SaliencyMapMethod
    from art.estimators.classification import PyTorchClassifier

    model, x, y = few(digits, target=3, count=20)
    victim = PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")
    peer = SaliencyMapMethod(victim, theta=theta, gamma=1.0, batch_size=len(x), verbose=False)
    theirs = torch.from_numpy(peer.generate(x.numpy(), y=torch.full_like(y, 3).numpy()))
    no_larger(model, jsma(theta, target=3).smallest(model, x, y), theirs, x, y, Norm.l0, 3)


@pytest.mark.parametrize("norm", [Norm.l2, Norm.linf, Norm.l1])
def test_on_a_linear_model_fmn_comes_near_to_the_optimum(
    norm: Norm, linear_model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x = images[0]
    y = linear_model(x).argmax(1)
    exact = sizes(LinearOptimum(norm=norm, target=None).smallest(linear_model, x, y) - x)[norm]
    found = fmn(norm, steps=100).smallest(linear_model, x, y)
    assert (linear_model(found).argmax(1) != y).all()
    ratio = sizes(found - x)[norm] / exact
    assert ratio.min() > 1 - 1e-4
    assert ratio.mean() < {Norm.l2: 1.01, Norm.linf: 1.1, Norm.l1: 1.2}[norm]


@pytest.mark.parametrize("attack", [fmn(Norm.l2, steps=20), ddn(steps=20), ead(steps=20), jsma()])
def test_what_is_read_wrong_or_reaches_the_target_is_left_alone(attack: SmallestPerturbation, digits: Digits) -> None:
    model, x, y = few(digits, count=20)
    wrong = torch.arange(20) % 2 == 0
    found = attack.smallest(model, x, torch.where(wrong, (y + 1) % 10, y))
    assert torch.equal(found[wrong], x[wrong])
    assert (model(found).argmax(1) != y)[~wrong].double().mean() > 0.9


def test_values_move_towards_the_image_and_stop_there() -> None:
    x, moved = torch.tensor([[0.5, 0.5, 0.5, 0.1]]), torch.tensor([[0.53, 0.505, 0.2, -0.4]])
    torch.testing.assert_close(shrink(moved, x, 0.01), torch.tensor([[0.52, 0.5, 0.21, 0.0]]))


def test_a_step_of_jsma_worked_out_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.3, 0.1, 0.4]])
    x, y = torch.tensor([[[[0.55, 0.15, 0.15, 0.95]]]]), torch.tensor([0])
    # class 1 gains most by the last value and the second; then the last is at its end, and the third follows
    assert jsma(0.3).smallest(model, x, y).flatten().tolist() == pytest.approx([0.55, 0.75, 0.45, 1.0])
    out_of_reach = torch.tensor([[[[0.9, 0.1, 0.1, 0.9]]]])
    assert torch.equal(jsma(0.8).smallest(model, out_of_reach, y), out_of_reach)


def test_jsma_stops_at_its_share_of_the_values_and_darkens_where_theta_is_negative(digits: Digits) -> None:
    model, x, y = few(digits, count=20)
    count = {share: sizes(jsma(distortion=share).smallest(model, x, y) - x)[Norm.l0] for share in (0.05, 1.0)}
    assert count[0.05].max() == 2  # of 64, in pairs
    assert count[1.0].max() > 2
    darkened = jsma(-1.0).smallest(model, x, y)
    assert (darkened <= x).all()
    assert (darkened < x).any()


def test_only_the_nearest_that_reaches_the_goal_is_kept() -> None:
    x = torch.zeros(3, 1, 1, 1)
    nearest = Nearest.none(x)
    for value, reached in ((3.0, [True, False, False]), (1.0, [True, False, True]), (2.0, [True, False, True])):
        nearest.note(x + value, torch.tensor(reached), torch.full((3,), value))
    assert nearest.images.flatten().tolist() == [1, 0, 1]
    assert nearest.size.tolist() == [1, torch.inf, 1]
    assert not x.any()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: fmn(Norm.l2, steps=0), "steps: must be at least 1, got 0"),
        (lambda: FMN(norm=Norm.l2, target=None, steps=1, step_size=0, rate=0.1), "step_size: must be above 0"),
        (lambda: FMN(norm=Norm.l2, target=None, steps=1, step_size=1, rate=1), "rate: must be above 0 and below 1"),
        (lambda: ddn(steps=0), "steps: must be at least 1, got 0"),
        (lambda: ead(rounds=0), "rounds: must be at least 1, got 0"),
        (lambda: jsma(0.0), "theta: must be between -1 and 1 and not 0, got 0"),
        (lambda: jsma(distortion=1.5), "distortion: must be above 0"),
    ],
)
def test_values_out_of_range_are_refused(build: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        build()  # type: ignore[operator]
