"""Networks of torchvision, with random or pretrained weights."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trustml_cli.models.blur import Pooling, blur_resnet
from trustml_cli.models.model import InputSpec, Model, require_images
from trustml_cli.models.norm import Norm
from trustml_cli.models.pretrained import Pretrained, Published, RepeatGrey
from trustml_cli.system.hardware import is_out_of_memory


class Frozen(nn.Module):
    """`body` with frozen weights, always in eval mode, so that BatchNorm statistics stay fixed."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class ResNet18(Model):
    """ResNet-18 (He et al. 2015, arXiv 1512.03385).

    Up to 64 px and without `weights`, the stem is one 3×3 convolution without max-pool, as is usual for CIFAR;
    otherwise it is torchvision's. `weights` is null, `imagenet` or the name of torchvision weights. With `freeze` only
    the head is trained; `head` lists the widths of hidden layers between the body and the output layer. With `pooling`
    by blur it is anti-aliased, from random weights.
    """

    norm: Norm
    weights: str | None
    freeze: bool
    head: list[int]
    pooling: Pooling

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width < 1 for width in self.head):
            raise ValueError(f"head: widths must be at least 1, got {self.head}")
        if self.pooling is Pooling.blur and self.weights is not None:
            raise ValueError("pooling: blur goes with random weights; use model.weights=null, or plain")
        if self.norm is not Norm.batch and self.weights is not None:
            raise ValueError("norm: pretrained weights are for BatchNorm; use batch, or model.weights=null")
        if self.freeze and self.weights is None and self.checkpoint is None:
            raise ValueError("freeze: would leave the weights random; give model.weights, e.g. imagenet")

    def network(self, inputs: InputSpec) -> nn.Module:
        from torchvision.models import resnet18

        channels, height, width = require_images(inputs)
        body = resnet18(norm_layer=self.norm.layer) if self.weights is None else pretrained("resnet18", self.weights)
        if self.weights is None and max(height, width) <= 64:
            body.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
            body.maxpool = nn.Identity()
        if self.pooling is Pooling.blur:
            blur_resnet(body)
        head = linear_head(body.fc.in_features, self.head, inputs.classes)
        whole = nn.Sequential(*([RepeatGrey()] if body.conv1.in_channels != channels else []), body)
        network = Frozen(whole) if self.freeze else whole
        body.fc = head if self.head else head[0]  # named as torchvision's, so that its files fit
        return network


@dataclass(frozen=True, kw_only=True)
class TorchvisionModel(Pretrained):
    """Any classifier of torchvision, by `name`; grey images are repeated as three channels.

    With `weights` (`imagenet` or the name of torchvision weights) it is trained with a new last linear layer, or taken
    as it is.
    """

    name: str
    weights: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        from torchvision import models

        known = models.list_models(module=models)
        if self.name not in known:
            raise ValueError(f"name: torchvision has no model {self.name!r}; it has {', '.join(known)}")

    def network(self, inputs: InputSpec) -> nn.Sequential:
        from torchvision import models

        channels, _, _ = require_images(inputs)
        if self.weights is None:
            whole = models.get_model(self.name, weights=None, num_classes=inputs.classes)
        else:
            whole = pretrained(self.name, self.weights)
            replace_last_linear(whole, inputs.classes)
        return nn.Sequential(*([RepeatGrey()] if channels == 1 else []), FirstOutput(whole))

    @property
    def has_weights(self) -> bool:
        return self.weights is not None

    def preprocessing(self) -> nn.Module | None:
        if self.weights is None:
            raise ValueError("preprocess: is that of pretrained weights; give model.weights, e.g. imagenet")
        return torchvision_weights(self.name, self.weights).transforms()  # type: ignore[no-any-return]

    def published(self) -> Published:
        assert self.weights is not None
        network = pretrained(self.name, self.weights)
        names = torchvision_weights(self.name, self.weights).meta["categories"]
        return Published(FirstOutput(network), self.preprocessing(), [[name] for name in names])


class FirstOutput(nn.Module):
    """Returns the main logits of networks that also return auxiliary logits in training mode."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        output = self.body(x)
        return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


def linear_head(features: int, hidden: list[int], classes: int) -> nn.Sequential:
    """Linear layers with the widths `features`, `hidden` and `classes`, with ReLU between them."""
    widths = [features, *hidden, classes]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def replace_last_linear(network: nn.Module, classes: int) -> None:
    """Replace the last linear layer of `network` by a new one for `classes`; raises ValueError where it has none."""
    linear = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError("weights: this model has no linear layer to replace for the classes; use weights=null")
    path, last = linear[-1]
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Linear(last.in_features, classes))


def torchvision_weights(name: str, weights: str) -> Any:
    """The entry of torchvision's `weights` for its model `name`; raises ValueError where there is none."""
    from torchvision.models import get_model_weights

    choices = get_model_weights(name)
    try:
        return choices["DEFAULT" if weights == "imagenet" else weights]
    except KeyError:
        known = ", ".join(["imagenet", *choices.__members__])
        raise ValueError(f"weights: no weights {weights!r} for {name}; there are {known}") from None


def pretrained(name: str, weights: str) -> Any:
    """Torchvision's model `name` with pretrained weights from torch's hub folder, downloaded if absent.

    Its builder makes it, because an architecture may depend on its weights: Inception and GoogLeNet then scale their
    inputs once more, and some vision transformers take larger images. Raises ValueError for unknown weights, where the
    download fails, and for a damaged file.
    """
    from torchvision.models import get_model

    chosen = torchvision_weights(name, weights)
    try:
        with redirect_stderr(io.StringIO()), weights_only():  # torch announces downloads on stderr, kept for errors
            return get_model(name, weights=chosen, progress=False)
    except Exception as error:  # a damaged file makes torch raise anything
        if is_out_of_memory(error):
            raise
        folder, file = f"{torch.hub.get_dir()}/checkpoints", chosen.url.rpartition("/")[2]
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"weights: {weights} for {name} could not be read or downloaded ({why}); put {file} into {folder}, or "
            "train from scratch with model.weights=null (and freeze=false)"
        ) from error


@contextmanager
def weights_only() -> Iterator[None]:
    """Keep `torch.load` from running code of a file inside, whatever it is called with."""
    wanted = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
