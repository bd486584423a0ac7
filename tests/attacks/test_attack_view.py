"""What attacks ask in the place of a network says the same, and has the same gradients."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torchvision.models import resnet18

from tests.configs import choices, composed
from trustml_cli.attacks.attack import Norm, input_gradient
from trustml_cli.attacks.attack_view import (
    choose_attack_view,
    folded_copy,
    logits_and_gradients,
    same_logits_and_gradients,
)
from trustml_cli.attacks.bim import BIM
from trustml_cli.attacks.geometry import lengths
from trustml_cli.attacks.measure import attack_curve
from trustml_cli.config.instantiate import build
from trustml_cli.models.model import InputSpec
from trustml_cli.models.thin_conv import ThinConv2d

AFTER_POOLING = {"fast_cnn": 3}  # BatchNorms that no convolution comes right before, so that they stay


def unsettled(network: nn.Module) -> nn.Module:
    """The network frozen, as if it had seen data: no BatchNorm of it is the identity."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for values in (layer.running_var, layer.weight.data):
                assert values is not None
                values.uniform_(0.5, 2)
            for values in (layer.running_mean, layer.bias.data):
                assert values is not None
                values.normal_()
    return network.eval().requires_grad_(False)


def folds(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def thins(network: nn.Module) -> int:
    return sum(isinstance(layer, ThinConv2d) for layer in network.modules())


OTHERS = (
    "custom",
    "huggingface",
    "robustbench",
    "table_mlp",
    "timm",
    "torchvision",
)  # nothing by default, or much like resnet18


@pytest.mark.parametrize("name", [name for name in choices("model") if name not in OTHERS])
def test_the_stand_in_of_every_model_says_the_same(name: str) -> None:
    network = unsettled(
        build(composed(f"model={name}").model, "model").build(InputSpec((3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3))
    )
    before = copy.deepcopy(network.state_dict())
    x, y = torch.rand(8, 3, 32, 32), torch.arange(8)
    fast = folded_copy(network)
    assert folds(fast) == AFTER_POOLING.get(name, 0)
    assert (fast is network) == (folds(network) == 0 and not thins(fast))
    torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)
    ours, theirs = input_gradient(fast, x, y), input_gradient(network, x, y)
    apart = lengths(ours - theirs) / lengths(theirs)
    assert (apart <= 1e-4).double().mean() >= 0.75  # an image that rounds to the other side of a kink has another
    assert apart.max() <= 0.05
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not fast.training


class Shared(nn.Sequential):
    """The output of the first layer is used once more."""

    def forward(self, x: Tensor) -> Tensor:
        first = self[0](x)
        rest: Tensor = self[4](self[3](self[2](self[1](first))))
        return rest + first.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize(
    ("pool", "kind", "called"),
    [
        (nn.AvgPool2d(2), nn.Sequential, "0234"),
        (nn.AvgPool2d(3), nn.Sequential, "0234"),
        (nn.MaxPool2d(2), nn.Sequential, "02134"),
        (nn.MaxPool2d(3, stride=2, padding=1), nn.Sequential, "02134"),
        (nn.AvgPool2d(2), Shared, "01234"),
        (nn.AvgPool2d(2, stride=1), nn.Sequential, "01234"),
        (nn.AvgPool2d(3, padding=1), nn.Sequential, "01234"),
    ],
)
def test_a_rectifier_joined_with_pooling_is_exactly_the_same(
    pool: nn.Module, kind: type[nn.Sequential], called: str
) -> None:
    torch.manual_seed(0)
    conv, relu = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()
    network = kind(conv, relu, pool, nn.Flatten(), nn.LazyLinear(3)).eval()
    x = torch.rand(5, 1, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    network(x)
    fast = folded_copy(network.requires_grad_(False))
    assert isinstance(fast, fx.GraphModule)
    assert "".join(str(node.target) for node in fast.graph.nodes if node.op == "call_module") == called
    logits, same = network(x), fast(x)
    assert torch.equal(logits, same)
    weights = torch.rand_like(logits)
    one, other = (torch.autograd.grad((each * weights).sum(), x)[0] for each in (logits, same))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)  # that of the thin convolution is rounded otherwise
    assert one.abs().max() > 1e-3


def test_shortcuts_are_followed() -> None:
    network = unsettled(resnet18(num_classes=10))
    assert (folds(network), folds(folded_copy(network))) == (20, 0)


class Moody(nn.Module):
    """Its forward pass depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 2))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits if x.mean() > 0.5 else -logits


def test_what_cannot_be_folded_stays_as_it_is() -> None:
    moody = Moody().eval()
    assert folded_copy(moody) is moody
    training = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    assert folded_copy(training) is training


class Block(nn.Module):
    """A convolution and a BatchNorm on 1×6×6 images, and whatever a subclass does with them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.norm = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.BatchNorm2d(4),
        )
        self.last = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.between(self.first(x)).flatten(1))
        return logits

    def between(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.conv(x)).tanh()
        return found


class Recurrent(Block):
    """Both layers are called twice."""

    def between(self, x: Tensor) -> Tensor:
        return super().between(super().between(x))


class Switching(Block):
    """One convolution with two BatchNorms."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def between(self, x: Tensor) -> Tensor:
        found: Tensor = self.other(self.conv(super().between(x))).tanh()
        return found


class Noisy(Block):
    """Adds noise that does not hang on the image, which a copy would draw once and for all."""

    def between(self, x: Tensor) -> Tensor:
        return super().between(x + torch.rand(1, 4, 1, 1))


class Counting(Block):
    """Turns its answer round at every other question, or from question number `last` on."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self.count, self.last_count = 0, last

    def between(self, x: Tensor) -> Tensor:
        self.count += 1
        turned = self.count % 2 == 0 if self.last_count is None else self.count > self.last_count
        return -super().between(x) if turned else super().between(x)


class StraightThrough(Block):
    """Rounds without the gradient's noticing; a copy would not know where there is none."""

    def between(self, x: Tensor) -> Tensor:
        found = super().between(x)
        with torch.no_grad():
            rounded = (4 * found).round() / 4 - found
        return found + rounded


def weight_norm() -> nn.Module:
    network = Block()
    nn.utils.weight_norm(network.conv)
    return network


def spectral_norm() -> nn.Module:
    network = Block()
    nn.utils.spectral_norm(network.conv)
    return network


def parametrised() -> nn.Module:
    network = Block()
    nn.utils.parametrizations.weight_norm(network.conv)
    nn.utils.parametrizations.spectral_norm(network.first)
    return network


def hooked_inside() -> nn.Module:
    network = Block()
    network.conv.register_forward_hook(lambda _, inputs, output: 2 * output)
    return network


def hooked_outside() -> nn.Module:
    network = Block()
    network.register_forward_hook(lambda _, inputs, output: output * torch.tensor([1.0, -1.0, 3.0]))
    return network


def hooked_backward() -> nn.Module:
    network = Block()
    network.norm.register_full_backward_hook(lambda _, inputs, outputs: (inputs[0].sign(),))
    return network


IMAGES = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(12) % 3
ODD = [
    Recurrent, Switching, Noisy, Counting, StraightThrough, weight_norm, spectral_norm, parametrised, hooked_inside,
    hooked_outside, hooked_backward,
]  # fmt: skip
ITSELF = {
    Noisy: "it answers differently each time",
    Counting: "it answers differently each time",
    StraightThrough: "the copy differs on 12 images",
    hooked_outside: "the copy differs on 12 images",
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_no_other_network_is_asked_in_place_of_an_odd_one(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = unsettled(make())
    asked = choose_attack_view(network, IMAGES, LABELS)
    if make in ITSELF:
        assert asked.network is network
        assert asked.which == f"the network itself: {ITSELF[make]}"
        assert not same_logits_and_gradients(
            logits_and_gradients(folded_copy(network), IMAGES, LABELS), logits_and_gradients(network, IMAGES, LABELS)
        )
    else:
        assert same_logits_and_gradients(
            logits_and_gradients(asked.network, IMAGES, LABELS), logits_and_gradients(network, IMAGES, LABELS)
        )
        bim = BIM(norm=Norm.linf, target=None, steps=4, step_size=None, rel_path_length=2.0)
        curve = attack_curve(network, bim, [(IMAGES, LABELS)], [0.2], keep=12)
        torch.testing.assert_close(curve.attacked[0].examples, bim(network, IMAGES, LABELS, 0.2), atol=1e-4, rtol=0)


def test_a_copy_that_is_wrong_under_attack_only_is_found_out() -> None:
    torch.manual_seed(0)
    network = unsettled(Counting(last=8))  # it is asked seven times before the attack ends
    bim = BIM(norm=Norm.linf, target=None, steps=4, step_size=None, rel_path_length=2.0)
    assert choose_attack_view(unsettled(Counting(last=8)), IMAGES, LABELS).which.startswith("a copy with folded layers")
    curve = attack_curve(network, bim, [(IMAGES, LABELS), (IMAGES, LABELS)], [0.1, 0.2], keep=0)
    assert curve.asked is not None
    assert curve.asked.network is network
    assert curve.asked.which == "the network itself: the copy differs on images under attack"
    assert len(curve.labels) == 24


def test_a_copy_that_cannot_be_asked_is_not() -> None:
    network = unsettled(Block())

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no kernel for this")

    assert choose_attack_view(network, IMAGES, LABELS).network is not network
    assert choose_attack_view(network, IMAGES, LABELS, compiled=lambda copy: Broken()).network is network
