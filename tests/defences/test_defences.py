"""Every defence in conf/defence: one table for all, and what each paper says in particular."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.configs import choice, choices
from tests.helpers import CPU
from trustml_cli.attacks.attack import Norm, input_gradient
from trustml_cli.attacks.measure import within_budget
from trustml_cli.attacks.pgd import PGD
from trustml_cli.config.instantiate import build
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset
from trustml_cli.defences.adversarial import AdversarialTraining
from trustml_cli.defences.defence import Defence, RobustTraining
from trustml_cli.defences.ensemble import EnsembleTraining
from trustml_cli.defences.free import FreeTraining
from trustml_cli.defences.trades import TradesTraining, divergence
from trustml_cli.system.hardware import seeded
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.step import CROSS_ENTROPY, Closure
from trustml_cli.training.trainer import Epoch

PROBE: PGD = build(choice("attack", "pgd", steps=20), "attack")


def defence(name: str, **changes: object) -> RobustTraining:
    with_parents = choice("defence", name)
    node = dict(with_parents)
    for parent in node.pop("defaults", []):
        if parent != "_self_":
            node = {**choice("defence", parent), **node}
    built = build(choice("defence", "none", **{**node, **changes}), "defence")
    assert isinstance(built, RobustTraining)
    return built


OTHERS = ["none", "rectify", "distillation"]  # these train on no perturbed images
ROBUST = [name for name in choices("defence") if name not in OTHERS]


class Bench:
    """A training state that keeps what the network is shown, and takes a plain step of SGD down the loss."""

    def __init__(self, network: nn.Module, lr: float = 0.1, networks: Sequence[nn.Module] = ()) -> None:
        self.network, self.module, self.lr = network, network, lr
        self.networks, self.memory = networks, dict[str, Any]()
        self.examples = self.batch_size = self.steps = 10
        self.shown: list[Tensor] = []
        self.losses: list[float] = []
        self.training: list[bool] = []
        network.register_forward_pre_hook(lambda _, given: self.watch(given[0]))
        self.watching = False

    def watch(self, x: Tensor) -> None:
        if self.watching:
            self.shown.append(x.detach().clone())
            self.training.append(self.network.training)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y)

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def apply_gradients(self) -> None:
        with torch.no_grad():
            for weight in self.network.parameters():
                weight -= self.lr * weight.grad

    def step(self, closure: Closure) -> tuple[Tensor, Tensor]:
        self.watching = True
        loss, logits = closure()
        self.watching = False
        self.network.zero_grad()
        loss.backward()
        self.apply_gradients()
        self.losses.append(loss.item())
        return loss.detach(), logits.detach()


@pytest.fixture
def network() -> nn.Module:
    """Three classes of 3×6×6 images, with dropout to tell training from eval mode."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(128, 3)]
    return nn.Sequential(*layers).train()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.rand(10, 3, 6, 6, generator=random), torch.randint(0, 3, (10,), generator=random)


def under_attack(network: nn.Module, data: Dataset, epsilon: float) -> float:
    """Accuracy on 200 test images under PGD."""
    x, y = next(batches(data.test, 200, CPU.device))
    network.eval().requires_grad_(False)
    with seeded(0):
        return (network(PROBE(network, x, y, epsilon)).argmax(1) == y).double().mean().item()


def trainer(**changes: object) -> GradientTrainer:
    built: GradientTrainer = build(choice("trainer", "default", **{"epochs": 6, **changes}), "trainer")
    return built


def fit(
    model: str, data: Dataset, defended: RobustTraining | None, static: list[nn.Module]
) -> tuple[nn.Module, list[Epoch]]:
    history: list[Epoch] = []
    with seeded(0):
        fresh = build(choice("model", model), "model").build(input_spec(data))
        trainer().fit(fresh, data, CPU, history.append, defended or CROSS_ENTROPY, static)
    return fresh.eval().requires_grad_(False), history


Undefended = Callable[[str], tuple[nn.Module, list[Epoch]]]


@pytest.fixture(scope="module")
def undefended(digits: Dataset) -> Undefended:
    """A plain network on digits, and its history; each model is trained once."""
    return cache(lambda model: fit(model, digits, None, []))


@pytest.mark.e2e
@pytest.mark.parametrize("model", ["mlp", pytest.param("cifar_cnn", marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", ROBUST)
def test_a_defended_network_stands_where_another_falls(
    name: str, model: str, undefended: Undefended, digits: Dataset
) -> None:
    plain, before = undefended(model)
    fewer = {"steps": 5} if name in ("pgd", "trades") else {}
    defended = defence(name, epsilon=0.15, monitor_images=100, **fewer)
    network, history = fit(model, digits, defended, [plain] * getattr(defended, "static", 0))
    assert history[-1].test_accuracy > before[-1].test_accuracy - 0.1
    stands = under_attack(network, digits, 0.15)
    assert stands > under_attack(plain, digits, 0.15) + 0.15
    assert history[-1].extra["train_robust_accuracy"] == pytest.approx(stands, abs=0.15)  # fewer steps, on other images


@pytest.mark.parametrize("name", ROBUST)
def test_images_that_are_learned_from_are_in_range_and_budget(
    name: str, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    (x, y), defended = batch, defence(name, epsilon=0.07)
    bench = Bench(network, networks=[network] * getattr(defended, "static", 0))
    before = bench.network[4].weight.detach().clone()
    torch.manual_seed(0)
    for _ in range(3):
        loss, logits = defended(bench, x, y)
    assert (loss.shape, logits.shape) == ((), (10, 3))
    assert not loss.requires_grad
    assert not logits.requires_grad
    assert all(within_budget(shown, x, 0.07, Norm.linf) for shown in bench.shown)
    assert sum(not torch.equal(shown, x) for shown in bench.shown) >= 3
    assert all(bench.training), "the network learns in training mode, whatever mode it is attacked in"
    assert not torch.equal(before, bench.network[4].weight)
    assert not x.requires_grad


def test_the_plain_step_is_one_step_on_the_batch_as_it_is(network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    bench = Bench(network)
    CROSS_ENTROPY(bench, *batch)
    assert len(bench.shown) == 1
    assert torch.equal(bench.shown[0], batch[0])


def test_fgsm_training_mixes_both_losses_at_the_images_of_equation_5(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    (x, y), bench = batch, Bench(network)
    network[3].p = 0.0
    x_adv = (x + 0.1 * input_gradient(network, x, y).sign()).clamp(0, 1)
    clean, attacked = (functional.cross_entropy(network(images), y).item() for images in (x, x_adv))
    loss, _ = defence("fgsm", clean_share=0.25)(bench, x, y)
    assert loss.item() == pytest.approx(0.25 * clean + 0.75 * attacked, rel=1e-6)
    assert torch.equal(bench.shown[1], x_adv)


def test_the_attack_sees_the_network_at_rest(network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    (x, y), bench = batch, Bench(network)
    network.eval()
    x_adv = (x + 0.1 * input_gradient(network, x, y).sign()).clamp(0, 1)
    network.train()  # with dropout now, the gradient's signs would be others
    defence("fgsm", clean_share=0.0)(bench, x, y)
    assert torch.equal(bench.shown[0], x_adv)


def test_fast_training_makes_one_step_longer_than_the_ball_from_a_random_point(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    (x, y), bench = batch, Bench(network)
    x = 0.3 + 0.4 * x  # the ends of the range are out of reach
    defence("fast")(bench, x, y)
    change = (bench.shown[0] - x).abs()
    assert within_budget(bench.shown[0], x, 0.1, Norm.linf)
    # from −0.1 … 0.1 by 0.125: those that began above −0.025, 5 in 8, are cut back to the edge
    assert (change > 0.1 - 1e-6).double().mean().item() == pytest.approx(0.625, abs=0.06)


def test_the_budget_grows_over_the_warmup(network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    (x, y), bench = batch, Bench(network)
    x = 0.4 + 0.2 * x  # the ends of the range are out of reach
    for _ in range(6):
        defence("fgsm", warmup=0.4, clean_share=0.0)(bench, x, y)  # 4 of 10 steps
    sizes = [(shown - x).abs().max().item() for shown in bench.shown]
    assert sizes == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1], abs=1e-6)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(1)


def test_the_divergence_of_trades_worked_out_by_hand() -> None:
    p, q = np.array([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]), np.array([[0.25, 0.25, 0.5], [0.2, 0.3, 0.5]])
    measured = divergence(torch.tensor(p).log() + 3, torch.tensor(q).log() - 1)  # a softmax forgets what is added
    # 0.5·ln 2 + 0.25·ln 1 − 0.25·ln 2 = 0.25·ln 2
    assert measured.numpy() == pytest.approx([0.25 * np.log(2), 0.0], abs=1e-12)
    assert measured.numpy() == pytest.approx(kl(p, q), abs=1e-12)


def test_the_loss_of_trades_is_that_of_the_paper(network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    (x, y), bench = batch, Bench(network)
    network[3].p = 0.0
    before = nn.Sequential(*network)
    weights = [weight.detach().clone() for weight in before.parameters()]
    loss, _ = defence("trades", beta=2.5, steps=5)(bench, x, y)
    clean, attacked = bench.shown
    for weight, old in zip(before.parameters(), weights, strict=True):
        weight.data.copy_(old)
    p, q = (before(images).softmax(1).detach().double().numpy() for images in (clean, attacked))
    by_hand = -np.log(p[np.arange(10), y.numpy()]).mean() + 2.5 * kl(p, q).mean()
    assert torch.equal(clean, x)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    random = (x + 0.1 * (2 * torch.rand_like(x) - 1).sign()).clamp(0, 1)
    of_random = kl(p, before(random).softmax(1).detach().double().numpy())
    assert kl(p, q).mean() > 3 * of_random.mean(), "the images are where the answers differ most, not anywhere"


def test_free_training_replays_each_batch_and_carries_the_perturbation_on(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    (x, y), bench, twin = batch, Bench(network), None
    network[3].p = 0.0
    x = 0.4 + 0.2 * x  # nothing is cut at 0 or 1
    torch.manual_seed(0)
    twin = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.0), nn.Linear(128, 3))
    twin.load_state_dict(network.state_dict())
    free = FreeTraining(norm=Norm.linf, epsilon=0.1, monitor_images=1, replays=3)
    for _ in range(2):
        free(bench, x, y)

    delta = torch.zeros_like(x)
    for shown in bench.shown:  # algorithm 1, with the gradients of a twin that is taught the same
        assert torch.allclose(shown, x + delta, atol=1e-6)
        images = (x + delta).requires_grad_(True)
        twin.zero_grad()
        functional.cross_entropy(twin(images), y).backward()
        with torch.no_grad():
            for weight in twin.parameters():
                weight -= 0.1 * weight.grad
        assert images.grad is not None
        delta = (delta + 0.1 * images.grad.sign()).clamp(-0.1, 0.1)
    assert len(bench.shown) == 6
    assert not torch.equal(bench.shown[3], x), "the second batch begins where the first ended"


@pytest.mark.e2e
def test_free_training_takes_its_replays_from_the_epochs(digits: Dataset) -> None:
    steps, history = [], []
    with seeded(0):
        fresh = build(choice("model", "mlp"), "model").build(input_spec(digits))
        fresh.register_forward_pre_hook(lambda network, _: steps.append(1) if network.training else None)
        trainer(steps_per_epoch=5, batch_size=16).fit(
            fresh, digits, CPU, history.append, defence("free", replays=4, monitor_images=5)
        )
    assert [(row.epoch, row.images) for row in history] == [(1, 320), (2, 320)]  # 6 / 4, rounded up
    assert len(steps) == 2 * 5 * 4
    assert history[-1].lr > 1e-4, "the schedule spans all steps: at the start of the second half it is not at its end"


def test_ensemble_training_follows_the_gradients_of_every_network_and_teaches_one(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    static = [nn.Sequential(nn.Flatten(), nn.Linear(108, 3)).eval().requires_grad_(False) for _ in range(2)]
    (x, y), bench = batch, Bench(network, lr=0.0, networks=static)
    network.eval()
    made_by = [(x + 0.1 * input_gradient(source, x, y).sign()).clamp(0, 1) for source in (network, *static)]
    network.train()
    ensemble = EnsembleTraining(norm=Norm.linf, epsilon=0.1, monitor_images=1, static=2, clean_share=0.0)
    torch.manual_seed(0)
    for _ in range(60):
        ensemble(bench, x, y)
    times = [sum(torch.equal(shown, made) for shown in bench.shown) for made in made_by]
    assert sum(times) == 60
    assert min(times) > 8  # of 20 expected


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("pgd", {"epsilon": 0.0}, "epsilon: must be above 0"),
        ("pgd", {"monitor_images": 0}, "monitor_images: must be at least 1"),
        ("pgd", {"steps": 0}, "steps: must be at least 1"),
        ("pgd", {"clean_share": 1.0}, "clean_share: must be at least 0 and below 1"),
        ("pgd", {"warmup": 1.5}, "warmup: must be between 0 and 1"),
        ("pgd", {"norm": "l0"}, "norm: must be one of linf, l2, l1"),
        ("free", {"norm": "l2"}, "norm: must be one of linf"),
        ("free", {"replays": 0}, "replays: must be at least 1"),
        ("trades", {"beta": -1.0}, "beta: must be at least 0"),
        ("trades", {"rel_path_length": 0.0}, "rel_path_length: must be above 0"),
        ("ensemble", {"static": 0}, "static: must be at least 1"),
    ],
)
def test_values_out_of_range_are_named(name: str, changes: dict[str, object], words: str) -> None:
    with pytest.raises(Exception, match=words):
        defence(name, **changes)


def test_none_is_no_training() -> None:
    assert type(build(choice("defence", "none"), "defence")) is Defence
    assert {type(defence(name)) for name in ROBUST} == {
        AdversarialTraining, FreeTraining, TradesTraining, EnsembleTraining,
    }  # fmt: skip
