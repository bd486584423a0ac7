"""Cleaners: what each trains, against values worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.configs import choice, choices
from tests.tasks.parts import MODEL, TRAINER
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.forgetting.cleaner import Backdoored, Cleaner, chosen_setting
from trustml_cli.forgetting.fine_prune import PrunedStep, last_hidden, mean_activation, silence
from trustml_cli.forgetting.nad import AttentionStep, attention
from trustml_cli.training.distillation import DistillationStep
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.step import CROSS_ENTROPY


def cleaner(name: str, **changes: Any) -> Cleaner:
    built: Cleaner = build(choice("cleaner", name, **changes), "cleaner")
    return built


@pytest.fixture
def network() -> nn.Sequential:
    """Two classes of 1×2×2 images; two convolutions, the second with BatchNorm."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16, 2)).eval()


@pytest.fixture
def backdoored(tiny_data: Dataset, network: nn.Sequential) -> Backdoored:
    return Backdoored(TrainingSpec(data=tiny_data, model=MODEL, trainer=TRAINER, seed=3), network, TRAINER)


@pytest.mark.parametrize("name", choices("cleaner"))
def test_every_cleaner_trains_on_the_clean_images_for_a_multiple_of_the_epochs(
    name: str, backdoored: Backdoored, tiny_data: Dataset
) -> None:
    clean = tiny_data.derive("clean", train=InMemory(torch.zeros(8, 1, 2, 2).byte(), torch.arange(8) % 2))
    method = cleaner(name, effort=2.5)
    for setting in method.settings:
        spec = method.spec(backdoored, clean, setting)
        assert spec.data is clean
        assert spec.trainer == replace(TRAINER, epochs=10, lr=spec.trainer.lr)
        assert spec.seed != backdoored.spec.seed
        fresh = name in ("retrain", "distill")
        assert spec.init_from == (None if fresh else backdoored.spec)
    first, last = (method.spec(backdoored, clean, setting) for setting in (method.settings[0], method.settings[-1]))
    assert (first == last) is (len(method.settings) == 1)


def test_each_cleaner_is_its_own(backdoored: Backdoored, tiny_data: Dataset) -> None:
    clean = tiny_data.derive("clean", train=InMemory(torch.zeros(8, 1, 2, 2).byte(), torch.arange(8) % 2))
    specs = {name: cleaner(name).spec(backdoored, clean, 0.5) for name in choices("cleaner")}
    assert specs["retrain"].step == specs["fine_tune"].step == CROSS_ENTROPY
    assert specs["fine_tune"].trainer == replace(TRAINER, epochs=20, lr=0.5 * TRAINER.lr)
    assert specs["distill"].step == DistillationStep(temperature=4, alpha=1.0)
    assert specs["distill"].needs == {"backdoored": backdoored.spec}
    assert specs["nad"].step == AttentionStep(beta=0.5)
    assert specs["nad"].needs == {"nad teacher": replace(specs["nad"], step=CROSS_ENTROPY, needs={})}
    assert specs["fine_prune"].step.layer == "2"  # type: ignore[attr-defined]


def test_the_most_thorough_setting_that_costs_little_is_chosen() -> None:
    reached = {0.3: 0.97, 1.0: 0.955, 3.0: 0.93}
    assert chosen_setting(reached, before=0.96, tolerance=0.01) == 1.0
    assert chosen_setting(reached, before=0.96, tolerance=0.0) == 0.3
    assert chosen_setting(reached, before=0.99, tolerance=0.01) == 0.3  # none will do
    assert chosen_setting(reached, before=0.93, tolerance=0.01) == 3.0


def test_the_channels_with_the_lowest_mean_activation_are_silenced(
    network: nn.Sequential, backdoored: Backdoored, tiny_data: Dataset
) -> None:
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias.fill_(0.0)
        network[2].weight.fill_(0.0)
        network[2].bias.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
        network[2].weight[3] = 1.0  # of three channels that hold the image
    split = InMemory(torch.full((300, 1, 2, 2), 51, dtype=torch.uint8), torch.zeros(300))
    scale = (1 + network[3].eps) ** -0.5
    expected = torch.tensor([0.5, 0.0, 2.0, 3 * 51 / 255], dtype=torch.float64) * scale
    torch.testing.assert_close(
        mean_activation(network, last_hidden(network, torch.rand(1, 1, 2, 2)), split), expected, atol=1e-6, rtol=0
    )
    spec = cleaner("fine_prune").spec(backdoored, tiny_data.derive("clean", train=split), 0.5)
    assert spec.step == PrunedStep(layer="2", channels=(0, 1))


def test_silent_channels_stay_silent_in_training(network: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)

    def take(closure: Any) -> tuple[Tensor, Tensor]:
        loss, logits = closure()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach(), logits.detach()

    state: Any = SimpleNamespace(
        network=network.train(), module=network, step=take, cross_entropy=functional.cross_entropy
    )
    before = network[2].weight.detach().clone()
    x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    for _ in range(3):
        PrunedStep(layer="2", channels=(1, 3))(state, x, y)
    made = network.eval()[:5](x)
    assert not made[:, [1, 3]].any()
    assert made[:, [0, 2]].any()
    assert not torch.equal(network[2].weight[0], before[0])


def test_a_network_of_linear_layers_loses_hidden_units() -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert last_hidden(layers, torch.rand(2, 1, 2, 2)) == "1"
    silence(layers, "1", [0])
    assert not layers[1].weight[0].any()
    assert layers[3].weight.all()


class Tokens(nn.Module):
    """Classifies the mean of rows of pixels as tokens; the output layer is defined first, and one is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.embed, self.mix, self.unused = (nn.Linear(*size) for size in ((4, 2), (2, 3), (3, 4), (4, 4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.embed(x[:, 0]).relu()).relu().mean(1))  # type: ignore[no-any-return]


def test_a_layer_of_tokens_loses_units_and_not_tokens() -> None:
    torch.manual_seed(0)
    network, pixels = Tokens(), torch.randint(256, (9, 1, 2, 2), dtype=torch.uint8)
    assert last_hidden(network, pixels / 255) == "mix"
    made = network.mix(network.embed(pixels[:, 0] / 255).relu()).relu()
    found = mean_activation(network, "mix", InMemory(pixels, torch.zeros(9)))
    torch.testing.assert_close(found, made.mean((0, 1)).detach().double(), atol=1e-6, rtol=0)


def test_attention_worked_out_by_hand() -> None:
    """Two channels, (1, 2) and (2, 0): squares add up to (5, 4), of length √41."""
    maps = torch.tensor([[[[1.0, 2.0]], [[2.0, 0.0]]]])
    torch.testing.assert_close(attention(maps), torch.tensor([[5.0, 4.0]]) / 41**0.5)


def test_the_loss_of_nad_adds_the_distance_of_attention(network: nn.Sequential) -> None:
    torch.manual_seed(1)
    teacher = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 2))
    x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0])
    state: Any = SimpleNamespace(
        module=network, networks=[teacher], autocast=torch.no_grad, cross_entropy=functional.cross_entropy,
        step=lambda closure: closure(),
    )  # fmt: skip
    loss, logits = AttentionStep(beta=7.0)(state, x, y)
    expected = functional.cross_entropy(network(x), y)
    for own, other in ((network[:1], teacher[:1]), (network[:3], teacher[:3])):
        expected = expected + 7 * (attention(own(x)) - attention(other(x))).norm(dim=1).square().mean()
    torch.testing.assert_close(loss, expected)
    assert torch.equal(logits, network(x))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("retrain", {"effort": 0}, "effort: must be above 0"),
        ("fine_tune", {"lr_factors": []}, "lr_factors: must be numbers above 0"),
        ("fine_tune", {"lr_factors": [1, 0]}, "lr_factors: must be numbers above 0"),
        ("fine_prune", {"shares": [1.0]}, "shares: must be numbers from 0 to below 1"),
        ("nad", {"betas": [-1]}, "betas: must be numbers above 0"),
        ("distill", {"alpha": 2}, "alpha: must be"),
    ],
)
def test_values_out_of_range_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        cleaner(name, **changes)


@pytest.mark.parametrize(
    ("name", "message"), [("nad", "needs a network with convolutions"), ("fine_prune", "hidden layer")]
)
def test_networks_that_cannot_be_cleaned_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cleaner(name).check(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
