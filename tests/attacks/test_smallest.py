"""DeepFool and Carlini-Wagner against foolbox, and how epsilon applies to attacks that do not know it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.cw import CarliniWagner, least
from trustml_cli.attacks.deepfool import DeepFool, to_the_nearest
from trustml_cli.attacks.linear import LinearOptimum
from trustml_cli.attacks.losses import clear_margin, logit_margin
from trustml_cli.attacks.measure import sizes, within_budget

Digits = tuple[nn.Module, Tensor, Tensor]


def deepfool(norm: Norm, steps: int = 50, overshoot: float = 0.02) -> DeepFool:
    return DeepFool(norm=norm, target=None, steps=steps, candidates=10, overshoot=overshoot)


def cw(
    target: int | None = None, steps: int = 60, confidence: float = 0.0, abort_early: bool = False, norm: Norm = Norm.l2
) -> CarliniWagner:
    return CarliniWagner(
        norm=norm, target=target, rounds=5, steps=steps, lr=0.02, constant=0.1, confidence=confidence,
        abort_early=abort_early,
    )  # fmt: skip


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", DeepFool.norms)
def test_deepfool_equals_that_of_foolbox(norm: Norm, digits: Digits) -> None:
    from foolbox import PyTorchModel, attacks

    model, x, y = digits
    peer = {Norm.l2: attacks.L2DeepFoolAttack, Norm.linf: attacks.LinfDeepFoolAttack}[norm]()
    theirs = peer.run(PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y)
    ours = deepfool(norm).smallest(model, x, y)
    clear = (
        clear_margin(model(theirs), y, None) > 0
    )  # where theirs is within rounding of the boundary we take a step more
    assert clear.double().mean() > 0.95
    torch.testing.assert_close(ours[clear], theirs[clear], atol=2e-6, rtol=0)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("target", "confidence"), [(None, 0.0), (3, 0.0), (None, 1.0)])
def test_carlini_wagner_equals_that_of_foolbox(target: int | None, confidence: float, digits: Digits) -> None:
    from foolbox import PyTorchModel, attacks, criteria

    model, x, y = digits
    x, y = (x, y) if target is None else (x[y != target], y[y != target])
    x, y = x[:30], y[:30]
    goal = criteria.Misclassification(y) if target is None else criteria.TargetedMisclassification(y * 0 + target)
    peer = attacks.L2CarliniWagnerAttack(
        binary_search_steps=4, steps=40, stepsize=0.03, confidence=confidence, initial_const=0.3, abort_early=False
    )
    theirs = peer.run(PyTorchModel(model, bounds=(0, 1), device="cpu"), x, goal)
    ours = replace(cw(target, 40, confidence), rounds=4, lr=0.03, constant=0.3).smallest(model, x, y)
    found = (theirs != 0).flatten(1).any(1)  # theirs is black where none was found
    assert found.double().mean() > 0.5
    difference = (ours - theirs)[found].flatten(1).abs().amax(1)
    assert (difference < 1e-6).double().mean() > 0.8  # Adam divides by gradients that may be nothing but rounding
    assert difference.max() < 0.05
    torch.testing.assert_close(
        *(sizes(one[found] - x[found])[Norm.l2].mean() for one in (ours, theirs)), rtol=1e-3, atol=0
    )
    assert torch.equal(ours[~found], x[~found])


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("images", "steps"), [pytest.param(6, 40, marks=pytest.mark.faults)])
def test_carlini_wagner_in_linf_is_no_larger_than_that_of_art(images: int, steps: int, digits: Digits) -> None:
    from art.attacks.evasion import CarliniLInfMethod
    from art.estimators.classification import PyTorchClassifier

    model, x, y = digits[0], digits[1][:images], digits[2][:images]
    victim = PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1))
    peer = CarliniLInfMethod(victim, max_iter=steps, learning_rate=0.8 / steps, verbose=False)
    theirs = torch.tensor(peer.generate(x.numpy(), y.numpy()))
    attack = replace(cw(steps=2 * steps + 20, norm=Norm.linf), lr=0.4 / steps, rounds=9)
    ours = attack.smallest(model, x, y)
    fell = model(theirs).argmax(1) != y
    assert fell.sum() >= images / 2
    assert (model(ours).argmax(1) != y)[fell].all()
    assert (sizes(ours - x)[Norm.linf][fell] <= sizes(theirs - x)[Norm.linf][fell]).all()


@pytest.mark.parametrize(
    ("norm", "mean", "largest"),
    [
        (Norm.l2, 1.03, 1.25),
        pytest.param(Norm.linf, 1.5, 3.0, marks=pytest.mark.faults),
        pytest.param(Norm.l0, 1.3, 2.0, marks=pytest.mark.faults),
    ],
)
def test_carlini_wagner_comes_near_to_the_smallest_there_is(
    norm: Norm, mean: float, largest: float, linear_model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x = images[0][:8]
    y = linear_model(x).argmax(1)
    exact = LinearOptimum(norm=norm, target=None).smallest(linear_model, x, y)
    attack = cw(steps=100, norm=norm, abort_early=norm is Norm.l0)
    found = attack.smallest(linear_model, x, y)
    assert (linear_model(found).argmax(1) != y).all()
    ratio = sizes(found - x)[norm] / sizes(exact - x)[norm]
    assert ratio.min() > 1 - 1e-4
    assert ratio.mean() < mean
    assert ratio.max() <= largest


def test_values_of_least_weight_are_left_out_first() -> None:
    weight, free = torch.tensor([[3.0, 0.0, 1.0, 2.0]]), torch.tensor([[True, False, True, True]])
    assert least(weight, free, torch.tensor([2])).tolist() == [[False, False, True, True]]


def test_carlini_wagner_finds_less_than_deepfool(digits: Digits) -> None:
    model, x, y = digits[0], digits[1][:20], digits[2][:20]
    ours = replace(cw(steps=120, abort_early=True), lr=0.05).smallest(model, x, y)
    quick = deepfool(Norm.l2).smallest(model, x, y)
    assert (model(ours).argmax(1) != y).all()
    assert sizes(ours - x)[Norm.l2].mean() < sizes(quick - x)[Norm.l2].mean()


def test_a_confidence_is_reached(digits: Digits) -> None:
    model, x, y = digits[0], digits[1][:20], digits[2][:20]
    x_adv = cw(confidence=2.0).smallest(model, x, y)
    found = (x_adv != x).flatten(1).any(1)
    assert found.double().mean() > 0.7
    assert (logit_margin(model(x_adv), y, None)[found] > 2.0).all()


def test_a_run_that_ends_early_asks_less_and_finds_as_much(digits: Digits) -> None:
    model, x, y = digits[0], digits[1][:10], digits[2][:10]
    asked = []
    counting = nn.Sequential(model)
    counting.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    whole = replace(cw(steps=60), rounds=4).smallest(counting, x, y)
    images, asked = sum(asked), []
    early = replace(cw(steps=60, abort_early=True), rounds=4).smallest(counting, x, y)
    assert 0 < sum(asked) < 0.9 * images
    torch.testing.assert_close(*(sizes(one - x)[Norm.l2].mean() for one in (early, whole)), rtol=0.02, atol=0)


def test_a_step_of_deepfool_worked_out_by_hand() -> None:
    gaps, normals = torch.tensor([[-1.0, -0.5]]), torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    step = to_the_nearest(gaps, normals, Norm.l2)  # at 1/5 and 1/2
    torch.testing.assert_close(step, (0.2 + 1e-4) * torch.tensor([[0.6, 0.8]]))
    step = to_the_nearest(gaps, normals, Norm.linf)  # at 1/7 and 1/2
    torch.testing.assert_close(step, (1 / 7 + 1e-4) * torch.tensor([[1.0, 1.0]]))


@pytest.mark.parametrize("norm", DeepFool.norms)
def test_deepfool_leaves_an_image_that_it_cannot_change(norm: Norm) -> None:
    class Ahead(nn.Module):  # class 0 is always ahead, and the tangent to the other's score says otherwise
        def forward(self, x: Tensor) -> Tensor:
            score = 10 * (x.flatten(1).mean(1) - 0.5)
            return torch.stack([torch.full_like(score, 1.5), score.tanh()], 1)

    x = torch.full((2, 1, 2, 2), 0.5)
    assert torch.equal(deepfool(norm, steps=1).smallest(Ahead(), x, torch.tensor([0, 0])), x)


@pytest.mark.parametrize("y", [0, 1])
def test_deepfool_moves_an_image_that_lies_on_the_boundary(y: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x, label = torch.full((1, 1, 1, 2), 0.5), torch.tensor([y])
    assert clear_margin(model(deepfool(Norm.l2).smallest(model, x, label)), label, None) > 0


def test_no_step_along_normals_of_zero() -> None:
    gaps, normals = torch.tensor([[2.0, 3.0], [2.0, 3.0]]), torch.zeros(2, 2, 2)
    normals[0, 1] = torch.tensor([0.0, -1.0])
    for norm in DeepFool.norms:
        torch.testing.assert_close(to_the_nearest(gaps, normals, norm), torch.tensor([[0.0, -3.0001], [0.0, 0.0]]))


@pytest.mark.parametrize("attack", [deepfool(Norm.linf), deepfool(Norm.l2), cw(steps=30)])
def test_an_image_falls_where_its_smallest_perturbation_is_within_epsilon(
    attack: DeepFool | CarliniWagner, digits: Digits
) -> None:
    model, x, y = digits[0], digits[1][:40], digits[2][:40]
    size = sizes(attack.smallest(model, x, y) - x)[attack.norm]
    found = size > 0
    epsilon = size[found].median().item()
    x_adv = attack(model, x, y, epsilon)
    assert within_budget(x_adv, x, epsilon, attack.norm)
    fell = model(x_adv).argmax(1) != y
    assert fell[found & (size < epsilon)].all()
    assert not fell[found & (size > 1.1 * epsilon)].any()
    assert torch.equal(x_adv[~found], x[~found])


def test_one_search_serves_the_whole_curve(digits: Digits) -> None:
    model, x, y = digits
    asked: list[int] = []
    counting = nn.Sequential(model)
    counting.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    deepfool(Norm.l2)(counting, x, y, 0.5)
    once = len(asked)
    assert len(list(deepfool(Norm.l2).curve(counting, x, y, [0.1, 0.2, 0.5, 1.0]))) == 4
    assert len(asked) == 2 * once


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: deepfool(Norm.l2, steps=0), "steps: must be at least 1, got 0"),
        (lambda: deepfool(Norm.l2, overshoot=-1), "overshoot: must be at least 0, got -1"),
        (lambda: DeepFool(norm=Norm.l2, target=1, steps=1, candidates=2, overshoot=0), "target: must be null, got 1"),
        (lambda: DeepFool(norm=Norm.l2, target=None, steps=1, candidates=1, overshoot=0), "candidates: must be at"),
        (lambda: deepfool(Norm.l1), "norm: must be one of l2, linf"),
        (lambda: cw(steps=0), "steps: must be at least 1, got 0"),
        (lambda: cw(confidence=-1.0), "confidence: must be at least 0 and finite, got -1"),
    ],
)
def test_values_out_of_range_are_refused(build: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        build()  # type: ignore[operator]
