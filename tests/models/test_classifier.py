"""Networks as people write them: each is asked in the ways it will be used, and read right or refused with a reason."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers import FRESH, Cli, facts, metrics, newest
from trustml_cli.models.classifier import Classifier, memory_format
from trustml_cli.models.model import InputSpec, Model, Normalization

Out = namedtuple("Out", ["features", "logits"])
Change = Callable[[nn.Module, Tensor], Any]


@dataclass
class Answer:
    loss: None
    logits: Tensor


class Plain(nn.Module):
    """Two convolutions and a linear layer, 1×8×8 to 10 classes; `change` makes of its logits what it returns."""

    def __init__(self, change: Change = lambda network, logits: logits) -> None:
        super().__init__()
        self.change = change
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(4))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Any:
        return self.change(self, self.head(self.flat(self.body(self.before(x)))))

    def before(self, x: Tensor) -> Tensor:
        return x

    def flat(self, features: Tensor) -> Tensor:
        return features.flatten(1)


class View(Plain):
    def flat(self, features: Tensor) -> Tensor:
        return features.view(-1, 32)


class Strided(Plain):
    """Reads memory in the order of contiguous images, whatever the order is."""

    def flat(self, features: Tensor) -> Tensor:
        return torch.as_strided(features, (len(features), 32), (32, 1))


class ViewBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.reshape(len(x), 32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.view(len(gradient), 8, 2, 2)


class InPlace(Plain):
    def before(self, x: Tensor) -> Tensor:
        x -= 0.5
        return x


class InPlaceInTraining(Plain):
    def before(self, x: Tensor) -> Tensor:
        return x.sub_(0.5) if self.training else x - 0.5


class Cast(Plain):
    def before(self, x: Tensor) -> Tensor:
        return x.to(self.head.weight.dtype)


READ: dict[str, Callable[[], nn.Module]] = {
    "view": View,
    "as_strided": Strided,
    "in place": InPlace,
    "in place in training": InPlaceInTraining,
    "auxiliary logits in training": lambda: Plain(lambda net, out: (out, out + 1) if net.training else out),
    "tuple of tuples": lambda: Plain(lambda _, out: ((out, out + 1), out - 1)),
    "features first": lambda: Plain(lambda _, out: (out[:, :7], out)),
    "named tuple": lambda: Plain(lambda _, out: Out(out + 1, out)),
    "list": lambda: Plain(lambda _, out: [out]),
    "mapping": lambda: Plain(lambda _, out: {"features": out + 1, "logits": out}),
    "mapping without logits": lambda: Plain(lambda _, out: {"features": out[:, :7], "scores": out}),
    "object": lambda: Plain(lambda _, out: Answer(None, out)),
    "convolutional": lambda: Plain(lambda _, out: out[:, :, None, None]),
    "squeezed": lambda: Plain(lambda _, out: out.squeeze()),
    "bf16": lambda: Plain(lambda _, out: out.bfloat16()),
    "float64": lambda: Plain(lambda _, out: out.double()),
    "weights in float64": lambda: Plain().double(),
    "cast to float64": lambda: Cast().double(),
    "DataParallel": lambda: nn.DataParallel(Plain()),
}


def classifier(make: Callable[[], nn.Module], shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> Classifier:
    class Made(Model):
        def network(self, inputs: InputSpec) -> nn.Module:
            return make()

    return Made(normalization=Normalization.none, **FRESH).build(InputSpec(shape, classes, (0.5,), (0.5,)))


@pytest.mark.parametrize("name", READ)
def test_what_networks_return_is_read_as_the_plain_network_s_logits(name: str) -> None:
    torch.manual_seed(0)
    plain, network = Plain().eval(), classifier(READ[name])
    inside = network.network.module if name == "DataParallel" else network.network
    inside.load_state_dict(plain.state_dict())
    network.to(memory_format=memory_format(network))
    some, shift = torch.rand(4, 1, 8, 8), 0.5 if "in place" in name else 0.0
    near = {"rtol": 0.02, "atol": 0.01} if name == "bf16" else {"rtol": 1e-4, "atol": 1e-5}
    for mode in (True, False):
        for x in (some, some[:1]):
            leaf = x.clone().to(memory_format=torch.channels_last).requires_grad_(True)
            logits = network.train(mode)(leaf)
            torch.testing.assert_close(logits, plain(x - shift), **near)
            functional.cross_entropy(logits, torch.arange(len(x))).backward()
            assert leaf.grad is not None
            assert leaf.grad.any()
            assert torch.equal(leaf, x), "the network has changed its caller's images"


def test_a_network_that_needs_nothing_is_called_as_it_is() -> None:
    network = classifier(Plain)
    assert (network.contiguous, network.copies, network.converts) == (False, False, False)
    assert memory_format(network) is torch.channels_last
    assert memory_format(nn.Sequential(classifier(View))) is torch.contiguous_format


def test_a_backward_pass_that_needs_contiguous_memory_gets_it() -> None:
    class Own(Plain):
        def flat(self, features: Tensor) -> Tensor:
            return ViewBackward.apply(features)  # type: ignore[no-any-return, no-untyped-call]

    assert classifier(Own).rehearsal.error == ""


def test_probing_leaves_statistics_and_random_numbers_as_they_were() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))

    network = classifier(make)
    after = torch.rand(3)
    make()
    assert torch.equal(after, torch.rand(3))
    assert network.network[0].num_batches_tracked == 0
    assert network.network[0].running_mean.item() == 0
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (lambda _, out: out[:, :9], 10, r"^returns \[2, 9\] for 2 images; logits of shape \[2, 10\] are needed$"),
        (lambda _, out: out.argmax(1), 10, r"^returns \[2\] for 2 images"),
        (lambda _, out: out.T, 10, r"^returns \[10, 2\] for 2 images"),
        (lambda _, out: out[:, :3].T[:2], 2, r"^returns \[2, 3\] for 3 images"),
        (lambda _, out: (out[:, :2], None), 10, r"^returns tuple of 0 \[2, 2\] for 2 images"),
        (
            lambda _, out: {"a": out, "b": out},
            10,
            r"^returns several tensors that may be its logits \(a, b\); call one",
        ),
        (lambda _, out: {"logits": None, "b": out}, 10, r"^returns dict of no tensor for 2 images"),
        (lambda _, out: torch.complex(out, out), 10, r"^returns \[2, 10\] for 2 images"),
        (lambda _, out: out[:, :1], 2, r"^returns \[3, 1\] for 3 images; .* return \[-z/2, z/2\]$"),
        (lambda _, out: len(out), 10, "^returns int of no tensor"),
    ],
)
def test_what_is_no_logits_is_refused_with_the_shapes(change: Change, classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(lambda: Plain(change), classes=classes)


NO_WEIGHT_GRADIENT = "model: cannot be trained: in training mode it gives no trainable weight a gradient"
COMMAND = ["model=custom", "trainer=smoke", "dataset.limit=100"]
REFUSED: list[tuple[str, list[str], str]] = [
    ("detach", ["task=fgsm"], "attack: needs gradients by the image"),
    ("detach", ["task=train", "defence=pgd"], "defence: needs gradients by the image"),
    ("detach_in_training", ["task=train", "defence=free"], "defence: needs gradients by the image"),
    ("detach", ["task=fooling"], "task: needs gradients by the image"),
    ("detach", ["task=physical"], "physical: needs gradients by the image"),
    ("detach", ["task=rectify"], "attacks.universal: needs gradients by the image"),
    ("detach", ["task=universal"], "attack: needs gradients by the image"),
    ("detach", ["task=ood", "task.holdout=9", "task.score=odin"], "task.score: odin: needs gradients by the image"),
    ("detach", ["task=explain", "task.explainer=saliency"], "task.explainer: saliency needs gradients by the image"),
    ("no_grad", ["task=train"], NO_WEIGHT_GRADIENT),
    ("needs_targets", ["task=train"], "model: cannot be trained: in training mode it fails (give targets)"),
    ("batch_norm", ["task=train", "trainer.batch_size=1"], "trainer.batch_size: the model cannot be trained on"),
    ("batch_norm", ["task=train", "dataset.limit=10", "trainer.patience=1", "trainer.validation_fraction=0.9"],
     "dataset: the model cannot be trained on batches of one"),
    ("extra", ["task=train"], "model: network._extra_state in its state_dict is not a dense tensor"),
]  # fmt: skip
SOURCE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, *layers, num_classes=10):
        super().__init__(nn.Flatten(), *layers, nn.Linear(64, num_classes))

class Detach(Net):
    def forward(self, x):
        return super().forward(x.detach())

class DetachInTraining(Net):
    def forward(self, x):
        return super().forward(x.detach() if self.training else x)

class NoGrad(Net):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)

class NeedsTargets(Net):
    def forward(self, x):
        if self.training:
            raise RuntimeError("give targets")
        return super().forward(x)

class Extra(Net):
    def get_extra_state(self):
        return {"a": 1}

def detach(num_classes): return Detach(num_classes=num_classes)
detach_in_training, no_grad = DetachInTraining, NoGrad
needs_targets, extra = NeedsTargets, Extra
def batch_norm(): return Net(nn.BatchNorm1d(64))
def softmax(): return nn.Sequential(batch_norm(), nn.Softmax(1))
"""


@pytest.fixture
def own(trustml: Cli, tmp_path: Any) -> Cli:
    """The command line with a factory of its own networks."""
    (tmp_path / "nets_of_the_classifier_table.py").write_text(SOURCE)
    return lambda factory, *words: trustml(*COMMAND, f"model.factory=nets_of_the_classifier_table:{factory}", *words)


SLOW = {"task=universal": [pytest.mark.faults]}


@pytest.mark.parametrize(
    ("factory", "words", "message"),
    [pytest.param(*case, marks=SLOW.get(case[1][0], []), id=f"{case[0]} {' '.join(case[1])}") for case in REFUSED],
)
def test_what_would_fail_in_training_is_refused_before_it(
    factory: str, words: list[str], message: str, own: Cli
) -> None:
    answer = own(factory, *words)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert f"trustml: error: {message}" in answer.stderr


class Rows(nn.Module):
    """A GRU over the rows of an image."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(8, 16, batch_first=batch_first), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x[:, 0])[0][:, -1])  # type: ignore[no-any-return]


class Dropping(Plain):
    def flat(self, features: Tensor) -> Tensor:
        return functional.dropout(features.flatten(1))  # in eval mode, too


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (Plain, None),
        (lambda: Plain().half(), None),
        (lambda: Rows(batch_first=True), None),
        (lambda: Rows(batch_first=False), "among other images"),
        (lambda: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), Plain()), "among other images"),
        (Dropping, "from call to call"),
    ],
)
def test_what_answers_depend_on_beside_the_image_is_said(factory: Callable[[], nn.Module], words: str | None) -> None:
    torch.manual_seed(0)
    told = [remark for remark in classifier(factory).remarks if "figures" in remark]
    assert len(told) == (words is not None)
    assert all(str(words) in remark for remark in told)


@pytest.mark.parametrize(
    ("training", "gradients", "by_torch"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_an_rnn_passes_gradients_in_eval_mode_also_on_a_gpu(training: bool, gradients: bool, by_torch: bool) -> None:
    network = classifier(lambda: Rows(batch_first=True)).train(training)
    found: list[bool] = []
    gru = next(layer for layer in network.modules() if isinstance(layer, nn.GRU))
    gru.register_forward_pre_hook(lambda *_: found.append(torch.backends.cudnn.enabled))
    with torch.set_grad_enabled(gradients):
        network(torch.rand(2, 1, 8, 8))
    assert found == [not by_torch]
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize(
    ("last", "remarks"),
    [(nn.Softmax(1), 1), (nn.Sigmoid(), 1), (nn.LogSoftmax(1), 0), (nn.ReLU(), 0), (nn.Identity(), 0)],
)
def test_probabilities_are_told_from_logits(last: nn.Module, remarks: int) -> None:
    found = classifier(lambda: nn.Sequential(Plain(), last)).remarks
    assert ["returns probabilities, not logits" in remark for remark in found] == [True] * remarks


def test_a_warning_about_a_network_is_logged_and_kept(own: Cli, tmp_path: Any) -> None:
    own("softmax", "task=train", "trainer.batch_size=1")  # refused, which saves the training
    (remark,) = facts(newest(tmp_path))["remarks"]
    assert "returns probabilities, not logits" in remark
    assert remark in (newest(tmp_path) / "trustml.log").read_text(encoding="utf-8")


def test_explainers_without_gradients_are_left_for_a_network_that_has_none(own: Cli, tmp_path: Any) -> None:
    assert own("detach", "task=explain", "task.images=2", "trainer.steps_per_epoch=1").returncode == 0
    assert list(metrics(newest(tmp_path))["explainer"]) == ["occlusion"]
