"""The iterative attacks against closed forms on a linear model and against two peer libraries."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.attacks.planted import Decoys
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.bim import BIM
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.geometry import project, random_start
from trustml_cli.attacks.losses import Loss, logit_margin
from trustml_cli.attacks.measure import sizes
from trustml_cli.attacks.mifgsm import MIFGSM
from trustml_cli.attacks.noise import Noise
from trustml_cli.attacks.pgd import PGD
from trustml_cli.attacks.rfgsm import RFGSM
from trustml_cli.system.hardware import seeded

LINF_L2 = (Norm.linf, Norm.l2)
SETTINGS = list(itertools.product(LINF_L2, (None, 1), (0.03, 0.3)))


def bim(norm: Norm, target: int | None = None, steps: int = 10, rel_path_length: float = 2.0) -> BIM:
    return BIM(norm=norm, target=target, steps=steps, step_size=None, rel_path_length=rel_path_length)


def pgd(
    norm: Norm,
    target: int | None = None,
    loss: Loss = Loss.ce,
    random_start: bool = True,
    restarts: int = 1,
    steps: int = 20,
) -> PGD:
    start = {"random_start": random_start, "restarts": restarts}
    return PGD(norm=norm, target=target, loss=loss, steps=steps, step_size=None, rel_path_length=2.5, **start)  # type: ignore[arg-type]


def mifgsm(norm: Norm, target: int | None = None, decay: float = 1.0) -> MIFGSM:
    return MIFGSM(norm=norm, target=target, steps=10, step_size=None, rel_path_length=1.0, decay=decay)


class Linear(nn.Module):
    """Two classes of 1×1×2 images; logits (0, 3a − 4b)."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ torch.tensor([3.0, -4.0])
        return torch.stack([torch.zeros_like(score), score], 1)


X, Y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([1])


@pytest.mark.parametrize("norm", [Norm.linf, Norm.l2, Norm.l1])
def test_on_a_linear_model_every_climb_ends_where_one_step_does(norm: Norm) -> None:
    expected = {Norm.linf: [0.4, 0.6], Norm.l2: [0.44, 0.58], Norm.l1: [0.5, 0.6]}[norm]
    for attack in (bim(norm), pgd(norm), pgd(norm, random_start=False), mifgsm(norm), FGSM(norm=norm, target=None)):
        with seeded(0):
            x_adv = attack(Linear(), X, Y, 0.1)
        torch.testing.assert_close(x_adv.flatten(), torch.tensor(expected), atol=0.015, rtol=0)  # L2 curves


def test_the_random_step_comes_first_and_the_gradient_takes_the_rest() -> None:
    attack = RFGSM(norm=Norm.linf, target=None, random_share=0.25)
    x = X.expand(200, 1, 1, 2)
    with seeded(0):
        signs = torch.randn_like(x).sign()
    with seeded(0):
        x_adv = attack(Linear(), x, Y.expand(200), 0.2)
    torch.testing.assert_close(x_adv, x + 0.05 * signs + 0.15 * torch.tensor([-1.0, 1.0]))
    assert len(x_adv.unique(dim=0)) == 4


def test_noise_fills_the_ball_and_does_not_ask_the_model() -> None:
    class Refuses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("was asked")

    x = torch.full((500, 1, 4, 4), 0.5)
    with seeded(0):
        drawn = Noise(norm=Norm.linf, target=None)(Refuses(), x, torch.zeros(500).long(), 0.3)
    assert sizes(drawn - x)[Norm.linf].mean().item() == pytest.approx(0.3 * 16 / 17, rel=0.01)  # the largest of 16


def test_a_step_has_its_own_size_or_follows_epsilon() -> None:
    own = BIM(norm=Norm.linf, target=None, steps=3, step_size=0.01, rel_path_length=1.0)
    torch.testing.assert_close(own(Linear(), X, Y, 0.1).flatten(), torch.tensor([0.47, 0.53]))
    assert bim(Norm.linf, steps=10, rel_path_length=2.0).step(0.1) == pytest.approx(0.02)


def test_momentum_goes_on_where_the_gradient_turns() -> None:
    class Valley(nn.Module):  # the loss of class 0 rises up to 0.55, and falls after it
        def forward(self, x: Tensor) -> Tensor:
            score = -(x.flatten(1).sum(1) - 0.55).abs()
            return torch.stack([torch.zeros_like(score), score], 1)

    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    settings = {"norm": Norm.linf, "target": None, "steps": 8, "step_size": 0.02, "rel_path_length": 1.0}
    plain, carried = MIFGSM(**settings, decay=0.0), MIFGSM(**settings, decay=1.0)
    places = {attack: [attack(Valley(), x, y, 0.2).item()] for attack in (plain, carried)}
    assert places[plain][0] == pytest.approx(0.54, abs=0.011)  # to and fro around the ridge
    # gradients of +1, +1, +1 are spent by three of −1, the fourth of which turns it round
    steps = [MIFGSM(**{**settings, "steps": n}, decay=1.0)(Valley(), x, y, 0.2).item() for n in range(1, 9)]
    assert steps == pytest.approx([0.52, 0.54, 0.56, 0.58, 0.6, 0.6, 0.58, 0.56], abs=0.021)
    assert max(steps) >= 0.58


def test_restarts_keep_the_best_climb_of_each_image(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    with seeded(5):
        once = pgd(Norm.linf, restarts=1, steps=2)(model, x, y, 0.04)
    with seeded(5):
        often = pgd(Norm.linf, restarts=8, steps=2)(model, x, y, 0.04)
    one, best = -logit_margin(model(once), y, None), -logit_margin(model(often), y, None)
    assert (best <= one).all()
    fell = one < 0
    assert fell.any()
    assert torch.equal(often[fell], once[fell])  # what has fallen is left alone
    assert (best[~fell] < one[~fell]).double().mean() > 0.3  # the others had reached their corner before


@pytest.mark.parametrize(
    ("loss", "target", "falls"),
    [
        ("ce", None, False),
        ("margin", None, True),
        ("dlr", None, True),
        *((loss, 1, True) for loss in ("ce", "margin", "dlr")),
    ],
)
def test_a_loss_that_adds_up_all_classes_runs_after_decoys(loss: str, target: int | None, falls: bool) -> None:
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    attack = pgd(Norm.linf, target, Loss(loss), random_start=False)
    assert (Decoys()(attack(Decoys(), x, y, 0.3)).argmax(1) != y).item() is falls


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: bim(Norm.linf, steps=0), "steps: must be at least 1"),
        (lambda: bim(Norm.linf, rel_path_length=0), "rel_path_length: must be above 0"),
        (
            lambda: BIM(norm=Norm.linf, target=None, steps=1, step_size=-1, rel_path_length=1),
            "step_size: must be above 0",
        ),
        (lambda: pgd(Norm.linf, restarts=0), "restarts: must be at least 1"),
        (lambda: pgd(Norm.linf, restarts=2, random_start=False), "restarts: .*random_start"),
        (lambda: mifgsm(Norm.linf, decay=2), "decay: must be between 0 and 1"),
        (lambda: bim(Norm.l0), "norm: must be one of linf, l2, l1"),
        (lambda: RFGSM(norm=Norm.l2, target=None, random_share=1.0), "random_share: must be at least 0 and below 1"),
        (lambda: Noise(norm=Norm.l2, target=3), "target: must be null, got 3; noise has no target"),
    ],
)
def test_values_out_of_range_are_refused(build: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        build()  # type: ignore[operator]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "target", "epsilon"), SETTINGS)
def test_bim_and_pgd_equal_those_of_foolbox(
    norm: Norm, target: int | None, epsilon: float, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    from foolbox import PyTorchModel, attacks, criteria

    x, y = images
    peer = PyTorchModel(model, bounds=(0, 1), device="cpu")
    goal = criteria.Misclassification(y) if target is None else criteria.TargetedMisclassification(y * 0 + target)
    kinds = {
        Norm.linf: (attacks.LinfBasicIterativeAttack, attacks.LinfProjectedGradientDescentAttack),
        Norm.l2: (attacks.L2BasicIterativeAttack, attacks.L2ProjectedGradientDescentAttack),
    }
    basic, projected = kinds[norm]
    theirs = basic(rel_stepsize=0.2, steps=10, random_start=False).run(peer, x, goal, epsilon=epsilon)
    torch.testing.assert_close(bim(norm, target)(model, x, y, epsilon), theirs, atol=1e-6, rtol=0)

    with seeded(7):
        start = random_start(x, epsilon, norm)
    same_start = type("SameStart", (projected,), {"get_random_start": lambda *_: type_of(start)})
    theirs = same_start(rel_stepsize=2.5 / 20, steps=20).run(peer, x, goal, epsilon=epsilon)
    with seeded(7):
        ours = pgd(norm, target)(model, x, y, epsilon)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def type_of(tensor: Tensor) -> object:
    """The tensor as foolbox's own."""
    import eagerpy

    return eagerpy.astensor(tensor)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "target", "epsilon"), SETTINGS)
def test_mifgsm_and_pgd_equal_those_of_art(
    norm: Norm, target: int | None, epsilon: float, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    from art.attacks.evasion import MomentumIterativeMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    x, y = images
    x = 0.35 + 0.3 * x  # away from the edges: in L2, ART cuts to [0, 1] before it projects, we and foolbox after it
    peer = PyTorchClassifier(model, nn.CrossEntropyLoss(), x.shape[1:], 3, clip_values=(0, 1), device_type="cpu")
    labels = (y if target is None else torch.full_like(y, target)).numpy()
    shared = {
        "norm": {Norm.linf: np.inf, Norm.l2: 2}[norm], "eps": epsilon, "targeted": target is not None,
        "batch_size": len(x), "verbose": False,
    }  # fmt: skip
    momentum = MomentumIterativeMethod(peer, decay=1.0, eps_step=epsilon / 10, max_iter=10, **shared)
    theirs = torch.from_numpy(momentum.generate(x.numpy(), y=labels))
    torch.testing.assert_close(mifgsm(norm, target)(model, x, y, epsilon), theirs, atol=1e-6, rtol=0)

    projected = ProjectedGradientDescentPyTorch(
        peer, eps_step=2.5 * epsilon / 20, max_iter=20, num_random_init=0, **shared
    )
    theirs = torch.from_numpy(projected.generate(x.numpy(), y=labels))
    ours = pgd(norm, target, random_start=False)(model, x, y, epsilon)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_projection_ends_every_step(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    x_adv = BIM(norm=Norm.l2, target=None, steps=3, step_size=5.0, rel_path_length=1.0)(model, x, y, 0.2)
    torch.testing.assert_close(project(x_adv, x, 0.2, Norm.l2), x_adv)
    assert sizes(x_adv - x)[Norm.l2].max() <= 0.2 + 1e-6
