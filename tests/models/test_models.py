"""Every YAML in conf/model, built for several shapes: what holds for all models, and each one's architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional

from tests.configs import choices, composed, skip_without_extra
from tests.helpers import FRESH, save_classifier
from trustml_cli.config.instantiate import build
from trustml_cli.config.trust import Permissions
from trustml_cli.models.fast_cnn import Whitening
from trustml_cli.models.model import InputSpec, Model, Normalization
from trustml_cli.system.errors import InputError

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
TAKE_TABLES = {"custom", "logistic", "mlp", "table_mlp"}
FACTORY = """
from torch import nn

def make(shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(12), nn.Tanh(), nn.Linear(12, num_classes))
"""
WITHOUT_DEFAULT = {"factory": "factory_of_the_model_table:make"}

Read = Callable[..., Model]


def inputs(shape: tuple[int, ...], classes: int = 10) -> InputSpec:
    channels = shape[0]
    return InputSpec(shape, classes, mean=(0.25, 0.5, 0.75)[:channels], std=(0.1, 0.2, 0.3)[:channels])


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """The model of a YAML, with other values where they are given."""
    (tmp_path / "factory_of_the_model_table.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)

    def read(choice: str, /, **changes: Any) -> Model:
        skip_without_extra(choice)
        node = OmegaConf.create(OmegaConf.to_container(composed(f"model={choice}").model))
        if choice == "timm":
            changes = {"name": "test_resnet", **changes}  # as resnet18, and smaller
        needed = {"id": tmp_path / "hub"} if choice == "huggingface" else WITHOUT_DEFAULT
        if choice == "huggingface":
            save_classifier(tmp_path / "hub")
        missing = {key: value for key, value in needed.items() if OmegaConf.is_missing(node, key)}
        model = build(
            OmegaConf.merge(node, missing, changes), "model", Permissions(["allow=[factory_of_the_model_table]"])
        )
        assert isinstance(model, Model)
        return model

    return read


AS_IT_IS = {"robustbench"}  # never with a new head
every_model = pytest.mark.parametrize("name", [name for name in choices("model") if name not in AS_IT_IS])


@every_model
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_come_out_and_gradients_reach_every_weight(read: Read, name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = read(name).build(inputs(shape, classes=7)).train()
    for weight in network.parameters():
        weight.data.masked_fill_((weight == 0).all(), 0.5)  # some branches begin at zero, and pass no gradient on
    logits = network(torch.rand(16, *shape))
    assert logits.shape == (16, 7)
    assert logits.std(0).min() > 0, "the logits do not depend on the image"
    functional.cross_entropy(logits, torch.arange(16) % 7).backward()
    weights = dict(network.named_parameters())
    assert len(weights) >= 2
    assert [key for key, weight in weights.items() if weight.grad is None or not weight.grad.any()] == []


@every_model
@pytest.mark.parametrize("normalization", ["none", "dataset", "imagenet", "symmetric"])
def test_the_first_layer_is_the_normalisation_in_pixel_units(read: Read, name: str, normalization: str) -> None:
    network = read(name, normalization=normalization).build(inputs((3, 32, 32)))
    assert [key for key, _ in network.named_children()] == ["normalize", "network"]
    mean, std = {
        "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "dataset": ((0.25, 0.5, 0.75), (0.1, 0.2, 0.3)),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    }[normalization]
    mean_image = torch.tensor(mean).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    one_deviation_more = mean_image + torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(network[0](mean_image), torch.zeros(2, 3, 32, 32), atol=1e-6, rtol=0)
    torch.testing.assert_close(network[0](one_deviation_more), torch.ones(2, 3, 32, 32), atol=1e-6, rtol=0)


def test_one_grey_channel_is_normalised_by_the_mean_of_imagenet_s_constants(read: Read) -> None:
    network = read("logistic", normalization="imagenet").build(inputs((1, 8, 8)))
    grey = torch.full((1, 1, 8, 8), 0.449)  # (0.485 + 0.456 + 0.406) / 3; the deviations' mean is 0.226
    torch.testing.assert_close(network[0](grey), torch.zeros(1, 1, 8, 8), atol=1e-6, rtol=0)
    torch.testing.assert_close(network[0](grey + 0.226), torch.ones(1, 1, 8, 8), atol=1e-6, rtol=0)


@every_model
def test_a_table_is_taken_or_refused_with_clear_words(read: Read, name: str) -> None:
    row = InputSpec((5,), 2, mean=(0.5,) * 5, std=(1.0,) * 5)
    if name in TAKE_TABLES:
        assert read(name).build(row)(torch.rand(3, 5)).shape == (3, 2)
    else:
        with pytest.raises(ValueError, match=r"^needs images, but the data set holds rows of shape 5$"):
            read(name).build(row)


@pytest.mark.parametrize("name", ["cifar_cnn", "fast_cnn"])
def test_an_image_too_small_for_the_pooling_is_refused(read: Read, name: str) -> None:
    assert read(name).build(inputs((1, 8, 8)))
    with pytest.raises(ValueError, match="needs images of at least 8×8, got 7×12"):
        read(name).build(inputs((1, 7, 12)))


def test_fresh_weights_differ_from_one_build_to_the_next(read: Read) -> None:
    first, second = (read("logistic").build(inputs((1, 8, 8))) for _ in range(2))
    assert not torch.equal(first.network[1].weight, second.network[1].weight)


def describe(layer: nn.Module) -> str:
    """A layer in a few words, e.g. 'conv 3→32 5×5 stride 1 same'."""
    match layer:
        case Whitening():
            return f"whitening {layer.in_channels}→{layer.out_channels} 2×2"
        case nn.Conv2d(kernel_size=(side, _), stride=(stride, _), padding=(padding, _)):
            same = " same" if 2 * padding + 1 == side else ""
            return f"conv {layer.in_channels}→{layer.out_channels} {side}×{side} stride {stride}{same}"
        case nn.Linear():
            return f"linear {layer.in_features}→{layer.out_features}"
        case nn.AvgPool2d(kernel_size=2, stride=2):
            return "average 2×2"
        case nn.Dropout():
            return f"dropout {layer.p}"
        case _:
            return type(layer).__name__.lower()


CIFAR_CNN = [
    *["conv 3→32 5×5 stride 1 same", "batchnorm2d", "relu", "average 2×2"],
    *["conv 32→32 5×5 stride 1 same", "batchnorm2d", "relu", "average 2×2"],
    *["conv 32→64 5×5 stride 1 same", "batchnorm2d", "relu", "average 2×2"],
    *["flatten", "linear 1024→64", "batchnorm1d", "relu", "linear 64→10"],
]
MNIST_CNN = [
    *["conv 1→32 3×3 stride 1 same", "relu", "conv 32→64 3×3 stride 2 same", "relu"],
    *["conv 64→128 3×3 stride 2 same", "relu", "conv 128→128 3×3 stride 2 same", "relu"],
    *["conv 128→128 3×3 stride 2 same", "relu", "flatten", "linear 512→100", "relu", "linear 100→10"],
]
FAST_CNN = [
    *["whitening 3→24 2×2", "gelu"],
    *["conv 24→64 3×3 stride 1 same", "maxpool2d", "batchnorm2d", "gelu"],
    *["conv 64→64 3×3 stride 1 same", "batchnorm2d", "gelu"],
    *["conv 64→256 3×3 stride 1 same", "maxpool2d", "batchnorm2d", "gelu"],
    *["conv 256→256 3×3 stride 1 same", "batchnorm2d", "gelu"],
    *["conv 256→256 3×3 stride 1 same", "maxpool2d", "batchnorm2d", "gelu"],
    *["conv 256→256 3×3 stride 1 same", "batchnorm2d", "gelu"],
    *["largest", "linear 256→10"],
]
MLP = ["flatten", "linear 784→256", "relu", "linear 256→128", "relu", "linear 128→10"]
WITH_DROPOUT = ["flatten", "linear 784→5", "relu", "dropout 0.25", "linear 5→10"]
ARCHITECTURES: list[tuple[str, dict[str, Any], tuple[int, ...], list[str], int]] = [
    ("logistic", {}, (1, 28, 28), ["flatten", "linear 784→10"], 784 * 10 + 10),
    ("mlp", {}, (1, 28, 28), MLP, (784 * 256 + 256) + (256 * 128 + 128) + (128 * 10 + 10)),
    ("mlp", {"hidden": 5, "dropout": 0.25}, (1, 28, 28), WITH_DROPOUT, (784 * 5 + 5) + (5 * 10 + 10)),
    ("mlp", {"hidden": []}, (1, 28, 28), ["flatten", "linear 784→10"], 7850),
    # convolutions 2,400 + 25,600 + 51,200; BatchNorms 64 + 64 + 128 + 128; linear 65,536 + 650
    ("cifar_cnn", {}, (3, 32, 32), CIFAR_CNN, 145_770),
    # convolutions 320 + 18,496 + 73,856 + 2 · 147,584; linear 51,300 + 1,010; 28 → 28 → 14 → 7 → 4 → 2 px
    ("mnist_cnn", {}, (1, 28, 28), MNIST_CNN, 440_150),
    # convolutions 13,824 + 36,864 + 147,456 + 3 · 589,824; biases 24 + 2 · 64 + 4 · 256; linear 2,560
    ("fast_cnn", {}, (3, 32, 32), FAST_CNN, 1_971_352),
]


@pytest.mark.parametrize(("name", "changes", "shape", "layers", "parameters"), ARCHITECTURES)
def test_the_architecture_is_the_documented_one(
    read: Read, name: str, changes: dict[str, Any], shape: tuple[int, ...], layers: list[str], parameters: int
) -> None:
    network = read(name, **changes).build(inputs(shape))
    assert [describe(layer) for layer in network.network] == layers
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mlp", {"hidden": [10, 0]}, "model.hidden: widths must be at least 1"),
        ("mlp", {"dropout": 1.0}, "model.dropout: must be at least 0 and below 1"),
        ("mlp", {"dropout": -0.1}, "model.dropout: must be at least 0 and below 1"),
        ("fast_cnn", {"width": 0}, "model.width: must be at least 1, got 0"),
        ("fast_cnn", {"views": 3}, "model.views: must be 1, 2 or 6, got 3"),
        ("mlp", {"normalization": "zscore"}, "model.normalization: "),
        ("resnet18", {"norm": "group", "weights": "imagenet"}, "model.norm: pretrained weights are for BatchNorm"),
        ("resnet18", {"head": [0]}, "model.head: widths must be at least 1"),
        ("torchvision", {"name": "resnet19"}, "model.name: torchvision has no model 'resnet19'; it has "),
        ("logistic", {"checkpoint": "absent.pt"}, "model.checkpoint: no file absent.pt"),
    ],
)
def test_a_bad_value_is_refused_by_its_key(read: Read, name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        read(name, **changes)
    assert str(error.value).startswith(message)


def test_a_model_that_does_not_return_one_logit_per_class_is_refused() -> None:
    class Pixels(Model):
        def network(self, inputs: InputSpec) -> nn.Module:
            return nn.Flatten()

    wrong = Pixels(normalization=Normalization.none, **FRESH)
    with pytest.raises(ValueError, match=r"returns \[2, 64\] for 2 images; logits of shape \[2, 10\]"):
        wrong.build(inputs((1, 8, 8)))


def test_a_network_with_parts_of_one_on_a_gpu_is_built_on_the_cpu() -> None:
    class OnGpu(nn.Flatten):
        on_cpu = False

        def _apply(self, move: Callable[..., Any], recurse: bool = True) -> nn.Module:
            self.on_cpu = True  # .cpu() is the only one that is called
            return self

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.on_cpu:
                raise RuntimeError("Expected all tensors to be on the same device")
            return super().forward(x)[:, :10]

    class Kept(Model):
        def network(self, inputs: InputSpec) -> nn.Module:
            return OnGpu()

    Kept(normalization=Normalization.none, **FRESH).build(inputs((1, 8, 8)))
