"""DP-SGD: clipping by hand and against Opacus, the noise and its source, and what the trainer refuses and says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.configs import choice, composed
from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.config.instantiate import build
from trustml_cli.models.classifier import Classifier
from trustml_cli.models.model import InputSpec
from trustml_cli.privacy import dp_sgd
from trustml_cli.privacy.dp_sgd import DpSgdStep, clipped_gradients, system_normal, system_uniform
from trustml_cli.system.errors import InputError

PRIVATE = ("task=train", "model=mlp", "model.normalization=symmetric", "trainer=dp_sgd", "trainer.batch_size=64",
           "trainer.epochs=3", "dataset.limit=300")  # fmt: skip


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, 4))


def examples(n: int = 7) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 8, 8, generator=random), torch.randint(4, (n,), generator=random)


def one_by_one(module: nn.Module, x: Tensor, y: Tensor, clip: float) -> tuple[dict[str, Tensor], list[float]]:
    """The same sum by a backward pass for each example."""
    total = {name: torch.zeros_like(weight) for name, weight in module.named_parameters()}
    norms = []
    for image, label in zip(x, y, strict=True):
        loss = functional.cross_entropy(module(image[None]), label[None])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        for values, gradient in zip(total.values(), gradients, strict=True):
            values += gradient * min(1.0, clip / norms[-1])
    return total, norms


@pytest.mark.parametrize("clip", [0.3, 1.2, 100.0])
def test_each_gradient_is_clipped_and_then_they_are_added(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dp_sgd, "AT_ONCE", 3)
    module, (x, y) = network(), examples()
    total, norms, losses, logits = clipped_gradients(module, dict(module.named_parameters()), x, y, clip)
    expected, expected_norms = one_by_one(module, x, y, clip)
    torch.testing.assert_close(total, expected)
    assert norms.tolist() == pytest.approx(expected_norms, rel=1e-4)
    torch.testing.assert_close(losses, functional.cross_entropy(module(x), y, reduction="none").detach())
    torch.testing.assert_close(logits, module(x).detach())


class Doubled(nn.Module):
    """What makes logits of twice a linear layer's output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.layer(x)


LINEAR = {
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), True),
    "without bias": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False)), True),
    "two layers": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 4)), False),
    "called for rows": (lambda: nn.Sequential(nn.Linear(8, 4), nn.Flatten(2), nn.Flatten(), nn.Unflatten(1, (8, 4)),
                                              nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten()), False),
    "not the logits": (lambda: Doubled(nn.Sequential(nn.Flatten(), nn.Linear(64, 4))), False),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("clip", [0.3, 100.0])
def test_gradients_of_a_linear_layer_are_not_made_and_clipped_alike(
    name: str, clip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, short = LINEAR[name]
    torch.manual_seed(0)
    module, (x, y) = make(), examples()
    made: list[str] = []
    for way in ("vmap", "clipped_gradients_of_linear"):
        called = getattr(dp_sgd, way)
        monkeypatch.setattr(
            dp_sgd, way, lambda *words, way=way, called=called, **more: made.append(way) or called(*words, **more)
        )
    total, norms, losses, logits = clipped_gradients(module, dict(module.named_parameters()), x, y, clip)
    assert made == ["clipped_gradients_of_linear" if short else "vmap"]
    expected, expected_norms = one_by_one(module, x, y, clip)
    torch.testing.assert_close(total, expected)
    assert norms.tolist() == pytest.approx(expected_norms, rel=1e-4)
    torch.testing.assert_close(losses, functional.cross_entropy(module(x), y, reduction="none").detach())
    torch.testing.assert_close(logits, module(x).detach())


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_gradients_of_examples_are_opacus_s() -> None:
    from opacus import GradSampleModule

    module, (x, y) = network(), examples()
    peer = GradSampleModule(network(), loss_reduction="sum")
    functional.cross_entropy(peer(x), y, reduction="sum").backward()
    samples = [weight.grad_sample for weight in peer.parameters()]
    norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples]).norm(dim=0)
    expected = [torch.tensordot((0.5 / norms).clamp(max=1), sample, 1) for sample in samples]
    total, ours, _, _ = clipped_gradients(module, dict(module.named_parameters()), x, y, 0.5)
    torch.testing.assert_close(ours, norms)
    torch.testing.assert_close(list(total.values()), expected)


def taken(step: DpSgdStep, x: Tensor, y: Tensor, size: int) -> tuple[list[Tensor], Any]:
    """The gradients of one step, as an optimiser is given them, and the state after it."""
    module = network()
    state: Any = SimpleNamespace(module=module, batch_size=size, memory={}, apply_gradients=lambda: None)
    step(state, x, y)
    return [weight.grad for weight in module.parameters() if weight.grad is not None], state


def test_a_step_adds_noise_of_the_clipping_norm_and_divides_by_the_expected_batch_size() -> None:
    x, y = examples()
    total, _, _, _ = clipped_gradients(network(), dict(network().named_parameters()), x, y, 0.5)
    silent, _ = taken(DpSgdStep(clip=0.5, noise_multiplier=0.0, noise_seed=None), x, y, 10)
    torch.testing.assert_close(silent, [values / 10 for values in total.values()])
    for seed in (None, 3):
        noisy, _ = taken(DpSgdStep(clip=0.5, noise_multiplier=40.0, noise_seed=seed), x, y, 10)
        noise = torch.cat([(a - b).flatten() for a, b in zip(noisy, silent, strict=True)])
        assert noise.std().item() == pytest.approx(40 * 0.5 / 10, rel=0.12)
        assert abs(noise.mean().item()) < 0.4


def test_an_empty_batch_is_a_step_of_noise_alone() -> None:
    x, y = examples()
    gradients, state = taken(DpSgdStep(clip=1.0, noise_multiplier=1.0, noise_seed=None), x[:0], y[:0], 10)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert DpSgdStep(clip=1.0, noise_multiplier=1.0, noise_seed=None).history(state) == {"clipped_share": 0.0}


def test_the_share_of_clipped_gradients_is_counted_and_begun_anew() -> None:
    x, y = examples()
    _, norms = one_by_one(network(), x, y, 1.0)
    clip = sorted(norms)[4] * 1.0001
    step = DpSgdStep(clip=clip, noise_multiplier=1.0, noise_seed=None)
    _, state = taken(step, x, y, 10)
    assert step.history(state) == {"clipped_share": pytest.approx(2 / 7)}
    assert step.history(state) == {"clipped_share": 0.0}


def test_each_example_is_in_a_batch_by_itself_with_the_same_probability() -> None:
    batches = DpSgdStep(clip=1.0, noise_multiplier=1.0, noise_seed=None).batches(200, 50, 400)
    sizes = torch.tensor([len(rows) for rows in batches]).double()
    assert sizes.mean().item() == pytest.approx(50, abs=1.6)  # five standard errors
    assert sizes.var().item() == pytest.approx(200 * 0.25 * 0.75, rel=0.4)
    often = torch.bincount(torch.cat(list(batches)), minlength=200)
    assert often.min() > 50
    assert all(len(rows.unique()) == len(rows) for rows in batches[:20])


def test_random_numbers_of_the_system_are_uniform_and_normal_and_no_seed_brings_them_back() -> None:
    from scipy.stats import kstest

    assert kstest(system_uniform(20_000), "uniform").pvalue > 1e-4
    assert kstest(system_normal(20_001), "norm").pvalue > 1e-4
    torch.manual_seed(0)
    first = system_normal(5)
    torch.manual_seed(0)
    assert not torch.equal(first, system_normal(5))
    assert len(system_normal(0)) == 0


def test_a_private_run_says_what_it_guarantees(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(*PRIVATE, "trainer.epsilon=2", "trainer.delta=1e-4")
    assert answer.returncode == 0, answer.stderr
    row = metrics(newest(tmp_path)).iloc[0]
    assert 1.99 < row.epsilon <= 2
    assert (row.delta, row.accountant, bool(row.rehearsal)) == (1e-4, "rdp", False)
    assert row.noise_multiplier > 0.5
    assert 0 < row.clipped_share <= 1
    assert all(check["passed"] for check in facts(newest(tmp_path))["checks"])


def test_a_seeded_run_is_called_a_rehearsal_and_gives_the_same_weights_again(trustml: Cli, tmp_path: Path) -> None:
    words = (*PRIVATE, "trainer.epsilon=null", "trainer.noise_multiplier=1.5", "trainer.noise_seed=1")
    rows = []
    for folder in ("first", "second"):
        answer = trustml(*words, f"cache_dir={folder}", "trainer.delta=0.01")
        assert answer.returncode == 0, answer.stderr
        rows.append(metrics(newest(tmp_path)).drop(columns=["seconds", "images_per_second"]))
    assert rows[0].equals(rows[1])
    assert bool(rows[0].rehearsal[0])
    checks = {check["name"]: check for check in facts(newest(tmp_path))["checks"]}
    assert "rehearsal" in checks["noise comes from the operating system and is not recorded"]["figure"]
    assert [name.split(" ")[0] for name, check in checks.items() if not check["passed"]] == ["noise", "delta"]
    assert "trainer: this does not hold: delta is below 1 over the training examples (0.01, n = 300)" in answer.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("model.normalization=dataset",), ("model.normalization=symmetric",)),
        (("model=cifar_cnn", "model.normalization=none"), ("model", "BatchNorm", "model.norm=group", "tanh_cnn")),
        (("trainer.accountant=pld", "trainer.delta=1e-12"), ("trainer.delta", "at least 1e-10", "accountant=rdp")),
        (("trainer.epsilon=1e-9",), ("trainer.epsilon", "no noise reaches")),
        (("trainer.noise_multiplier=1",), ("trainer.epsilon", "one of the two")),
        (("trainer.delta=1",), ("trainer.delta", "below 1")),
        (("trainer.patience=2",), ("trainer.patience", "use null")),
        (("defence=trades",), ("defence", "trainer=default")),
        (("defence=rectify",), ("defence: is fitted to private examples without noise", "defence=none")),
        (("calibrator=temperature",), ("calibrator: is fitted to private examples without noise", "calibrator=none")),
    ],
)
def test_what_is_not_private_is_refused_before_training(
    words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli
) -> None:
    answer = trustml(*PRIVATE, *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout


def test_a_checkpoint_has_no_epsilon_of_a_trainer_that_did_not_train_it(trustml: Cli, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = build(composed("model=mlp", "model.normalization=symmetric").model, "model")
    network = model.build(InputSpec((1, 8, 8), 10, (0.5,), (0.5,)))
    torch.save(network.state_dict(), tmp_path / "given.pt")
    answer = trustml(*PRIVATE, "model.checkpoint=given.pt")
    assert answer.returncode == 0, answer.stderr
    assert not {"epsilon", "delta", "rehearsal"} & set(metrics(newest(tmp_path)))


class Recurrent(nn.Module):
    """A GRU over rows, whose first state has the type of the input, or is made without it."""

    def __init__(self, by_input: bool) -> None:
        super().__init__()
        self.by_input, self.gru, self.head = by_input, nn.GRU(8, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(1, len(x), 5) if self.by_input else None
        return self.head(self.gru(x[:, 0], state)[0][:, -1])  # type: ignore[no-any-return]


def test_a_network_without_gradients_of_single_examples_is_refused_before_training() -> None:
    trainer: Any = build(composed("trainer=dp_sgd").trainer, "trainer")
    data: Any = SimpleNamespace(shape=(1, 8, 8), train=range(9))
    trainer.rehearse(Classifier(Recurrent(by_input=True)), data)
    with pytest.raises(InputError, match=r"^model: gives no gradients of single examples .*x\.new_zeros"):
        trainer.rehearse(Classifier(Recurrent(by_input=False)), data)


class Whitened(nn.Linear):
    """A layer that is initialised from training images."""

    def initialize_from(self, x: Tensor) -> None: ...


class Fixed(nn.Sequential):
    """Layers that are always in eval mode."""

    def train(self, mode: bool = True) -> "Fixed":
        return super().train(False)


def test_layers_that_read_private_examples_without_noise_are_refused() -> None:
    trainer: Any = build(composed("trainer=dp_sgd").trainer, "trainer")
    for layer, message in (
        (nn.BatchNorm2d(3, track_running_stats=False), "BatchNorm"),
        (nn.InstanceNorm2d(3, track_running_stats=True), "statistics"),
        (Whitened(3, 3), "initialised from private examples"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.check_network(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sequential(layer)))
    for kept in (nn.GroupNorm(1, 3), nn.InstanceNorm2d(3), Fixed(nn.BatchNorm2d(3))):
        trainer.check_network(nn.Sequential(nn.Conv2d(1, 3, 3), kept))


@pytest.mark.parametrize("name", ["cifar_cnn", "resnet18"])
def test_models_with_batch_norm_can_be_trained_privately_with_group_norm(name: str) -> None:
    """The gradients of each example are what they are without the others."""
    trainer: Any = build(composed("trainer=dp_sgd").trainer, "trainer")
    model: Any = build(composed(f"model={name}", "model.norm=group", "model.normalization=none").model, "model")
    torch.manual_seed(0)
    module = model.build(InputSpec((1, 8, 8), 4, (0.5,), (0.5,)))
    trainer.check_network(module)
    x, y = examples(3)
    module.train()
    weights = dict(module.named_parameters())
    total, _, _, _ = clipped_gradients(module, weights, x, y, 0.5)
    expected, _ = one_by_one(module, x, y, 0.5)
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-3)


def test_dropout_is_drawn_for_each_example() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False), nn.Dropout(0.5), nn.Linear(4, 4, bias=False))
    same = torch.rand(1, 1, 8, 8).expand(40, -1, -1, -1)
    _, _, _, logits = clipped_gradients(module, dict(module.named_parameters()), same, torch.zeros(40).long(), 1.0)
    assert len(logits.unique(dim=0)) > 8  # of 16


def test_the_network_of_the_paper_has_its_size() -> None:
    model = build(choice("model", "tanh_cnn"), "model")
    module = model.build(InputSpec((1, 28, 28), 10, (0.1,), (0.3,)))
    assert sum(weight.numel() for weight in module.parameters()) == 26_010
    for side in (6, 8, 13, 14, 17, 32):
        model.build(InputSpec((3, side, side), 10, (0.1,) * 3, (0.3,) * 3))
    with pytest.raises(ValueError, match="at least 6×6"):
        model.build(InputSpec((1, 5, 5), 10, (0.1,), (0.3,)))
