"""FGSM against a closed form and against two peer libraries."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm, input_gradient
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.fgsm_softmax import SoftmaxFGSM


class Linear(nn.Module):
    """Two classes of 1×1×2 images; logits (0, w·x)."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        score = x.flatten(1) @ self.weights
        return torch.stack([torch.zeros_like(score), score], 1)


X = torch.tensor([[[[0.5, 0.5]]]])


@pytest.mark.parametrize(
    ("norm", "target", "label", "expected"),
    [
        # away from class 1, whose score is 3a − 4b: against the weights (3, −4)
        (Norm.linf, None, 1, [0.4, 0.6]),
        (Norm.l2, None, 1, [0.5 - 0.1 * 0.6, 0.5 + 0.1 * 0.8]),
        # away from class 0, or towards class 1 from wherever: along them
        (Norm.linf, None, 0, [0.6, 0.4]),
        (Norm.linf, 1, 0, [0.6, 0.4]),
        (Norm.l2, 1, 0, [0.5 + 0.1 * 0.6, 0.5 - 0.1 * 0.8]),
        (Norm.linf, 0, 1, [0.4, 0.6]),
        (Norm.l1, None, 1, [0.5, 0.6]),
    ],
)
def test_a_linear_model_is_attacked_along_its_weights(
    norm: Norm, target: int | None, label: int, expected: list[float]
) -> None:
    x_adv = FGSM(norm=norm, target=target)(Linear(3.0, -4.0), X, torch.tensor([label]), 0.1)
    torch.testing.assert_close(x_adv.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("norm", FGSM.norms)
def test_an_image_without_gradient_stays_as_it_is(norm: Norm) -> None:
    assert torch.equal(FGSM(norm=norm, target=None)(Linear(0.0, 0.0), X, torch.tensor([1]), 0.3), X)


@pytest.mark.parametrize(("scale", "label", "target"), [(1.0, 1, None), (1.0, 0, 1), (1e4, 1, None), (1e4, 0, 0)])
def test_the_published_gradient_is_the_same_until_it_rounds_to_zero(
    scale: float, label: int, target: int | None
) -> None:
    """The score at X is scale / 2: the probability of class 1 is 1 for the larger one."""
    model, y = Linear(2 * scale, -scale), torch.tensor([label])
    exact, published = (kind(norm=Norm.linf, target=target)(model, X, y, 0.1) for kind in (FGSM, SoftmaxFGSM))
    assert not torch.equal(exact, X)
    assert torch.equal(published, exact if scale == 1 or target == 0 else X)


def test_the_step_is_clipped_to_valid_pixels() -> None:
    x_adv = FGSM(norm=Norm.linf, target=None)(Linear(1.0, -1.0), X, torch.tensor([1]), 0.8)
    assert x_adv.flatten().tolist() == [0.0, 1.0]


def test_an_l1_step_goes_on_with_the_next_value_where_one_is_at_its_bound() -> None:
    x_adv = FGSM(norm=Norm.l1, target=None)(Linear(3.0, -4.0), X, torch.tensor([1]), 0.8)
    torch.testing.assert_close(x_adv.flatten(), torch.tensor([0.2, 1.0]))


def test_one_backward_pass_serves_the_whole_curve() -> None:
    model = Linear(3.0, -4.0)
    assert len(list(FGSM(norm=Norm.linf, target=None).curve(model, X, torch.tensor([1]), [0.1, 0.2, 0.3, 0.4]))) == 4
    assert model.calls == 1


def test_the_gradient_is_that_of_each_image_alone(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    together = input_gradient(model, x, y)
    alone = torch.cat([input_gradient(model, x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, alone)
    step, image = 1e-3, x[:1].double()
    up, down = image.clone(), image.clone()
    up[0, 1, 2, 3] += step
    down[0, 1, 2, 3] -= step
    wrong = 1 - model(x[:1]).softmax(1)[0, y[0]].item()  # what the cross-entropy's gradient has for a factor
    loss = [nn.functional.cross_entropy(model.double()(moved), y[:1]).item() for moved in (up, down)]
    assert wrong * together[0, 1, 2, 3].item() == pytest.approx((loss[0] - loss[1]) / (2 * step), abs=1e-5)


def test_a_model_that_is_sure_of_itself_does_not_lose_its_gradient() -> None:
    x, model = torch.tensor([[[[0.9, 0.1]]]]), Linear(3000.0, -4000.0)
    leaf = x.clone().requires_grad_(True)
    nn.functional.cross_entropy(model(leaf), torch.tensor([1])).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert not leaf.grad.any()  # a score of 2,300: in float32 the softmax rounds to 1, and p − 1 to 0
    assert input_gradient(model, x, torch.tensor([1])).flatten().tolist() == [-3000, 4000]


SETTINGS = list(itertools.product(FGSM.norms, (None, 1), (0.03, 0.3)))
IN_FOOLBOX = [setting for setting in SETTINGS if setting[0] is not Norm.l1]  # whose L1 step is not the steepest


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "target", "epsilon"), SETTINGS)
def test_images_equal_those_of_art(
    norm: Norm, target: int | None, epsilon: float, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import PyTorchClassifier

    x, y = images
    if norm is Norm.l1:  # theirs wastes what is over once the one value that it changes is at its bound
        x = 0.35 + 0.3 * x
    peer = PyTorchClassifier(model, nn.CrossEntropyLoss(), x.shape[1:], 3, clip_values=(0, 1), device_type="cpu")
    attack = FastGradientMethod(
        peer,
        norm={Norm.linf: np.inf, Norm.l2: 2, Norm.l1: 1}[norm],
        eps=epsilon,
        targeted=target is not None,
        batch_size=len(x),
    )
    labels = y if target is None else torch.full_like(y, target)
    theirs = attack.generate(x.numpy(), y=labels.numpy())
    ours = FGSM(norm=norm, target=target)(model, x, y, epsilon)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-6, rtol=0)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "target", "epsilon"), IN_FOOLBOX)
def test_images_equal_those_of_foolbox(
    norm: Norm, target: int | None, epsilon: float, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    import foolbox

    x, y = images
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    if target is None:
        attack = {Norm.linf: foolbox.attacks.LinfFastGradientAttack, Norm.l2: foolbox.attacks.L2FastGradientAttack}
        _, theirs, _ = attack[norm](random_start=False)(peer, x, y, epsilons=epsilon)
    else:  # foolbox's fast gradient takes no target; its iterative attack does, and one whole step of it is the same
        attack = {Norm.linf: foolbox.attacks.LinfBasicIterativeAttack, Norm.l2: foolbox.attacks.L2BasicIterativeAttack}
        one_step = attack[norm](rel_stepsize=1.0, steps=1, random_start=False)
        goal = foolbox.criteria.TargetedMisclassification(torch.full_like(y, target))
        _, theirs, _ = one_step(peer, x, goal, epsilons=epsilon)
    ours = FGSM(norm=norm, target=target)(model, x, y, epsilon)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_norm_that_the_attack_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^norm: must be one of linf, l2, l1 for this attack, got l0$"):
        FGSM(norm=Norm.l0, target=None)
