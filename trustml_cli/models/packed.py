"""Bit-packed inference of a trained binary network, with the same outputs: `pack` converts, `load_packed` reads a file.

After Courbariaux et al. 2016, arXiv 1602.02830, and Rastegari et al. 2016, arXiv 1603.05279. BatchNorm and the sign
after it are replaced by one threshold for each channel, found by bisection on that BatchNorm: in float32, too, it is
monotone in its input, because rounding preserves order. Where it decreases, the channel's weights are negated, so that
it increases. The first layer computes float sums of pixels; the last passes its integer sums to its BatchNorm.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.binary import BinaryConv2d, BinaryLinear, Sign, sign
from trustml_cli.models.model import Normalize
from trustml_cli.models.popcount import WORD, fire, reach, sums

GREATEST = 0x7F7FFFFF  # bit pattern of the largest finite float32

Weighted = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d


class FromPixels(nn.Module):
    """The first layer: floats [N, C, H, W] to bits [N, H, W, words]; its weights are ±1, stored as floats."""

    weight: Tensor
    bias: Tensor
    threshold: Tensor
    geometry: Tensor

    def __init__(self, normalize: nn.Module, **tensors: Tensor) -> None:
        super().__init__()
        self.normalize = normalize
        keep(self, tensors)
        if self.weight.dim() == 4:
            self.weight = self.weight.to(memory_format=torch.channels_last)  # as in the float32 network

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        x = self.normalize(x)
        if self.weight.dim() == 4:
            stride, padding = self.geometry.tolist()
            made = functional.conv2d(x, self.weight, self.bias, stride, padding)
        else:
            made = functional.linear(x.flatten(1), self.weight, self.bias)[:, :, None, None]
        return reach(made.permute(0, 2, 3, 1), self.threshold)


class Bits(nn.Module):
    """A hidden layer: bits [N, H, W, words] to bits of the same layout."""

    weight: Tensor
    threshold: Tensor
    geometry: Tensor

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        keep(self, tensors)

    def forward(self, x: Tensor) -> Tensor:
        return fire(x, self.weight, self.threshold, *self.geometry.tolist())


class ToLogits(nn.Module):
    """The last layer: bits [N, H, W, words] to logits [N, classes]."""

    weight: Tensor
    bias: Tensor
    norm: Tensor
    eps: Tensor
    geometry: Tensor

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        keep(self, tensors)

    def forward(self, x: Tensor) -> Tensor:
        made = sums(x, self.weight, len(self.bias), *self.geometry.tolist()).flatten(1)
        mean, variance, weight, bias = self.norm
        return functional.batch_norm(made + self.bias, mean, variance, weight, bias, eps=self.eps.item())


def keep(layer: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Register tensors as buffers of `layer`, by name."""
    for name, tensor in tensors.items():
        layer.register_buffer(name, tensor)


def load_packed(path: Path) -> nn.Sequential:
    """The packed network in a .safetensors file, from pixels [N, *shape] in [0, 1] to logits [N, classes].

    Raises ValueError where the file holds no packed network.
    """
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(path).items():
        layer, _, part = name.partition(".")
        tensors.setdefault(layer, {})[part] = tensor
    if not all(name.isdigit() for name in tensors):
        raise ValueError(f"{path} holds no packed network; task=bnn task.export=packed writes one")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name in sorted(tensors, key=int):
        own = tensors[name]
        if "norm" in own:
            layers[name] = ToLogits(**own)
        elif "bias" in own:
            known = [tuple(own.pop(part).tolist()) for part in ("normalize.mean", "normalize.std") if part in own]
            layers[name] = FromPixels(Normalize(*known) if known else nn.Identity(), **own)
        else:
            layers[name] = Bits(**own)
    return nn.Sequential(layers)


@torch.no_grad()
def pack(network: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
    """Pack a trained `network` for inputs of `shape` into bits: one layer for each of `in_layers`, on the CPU.

    Raises ValueError where a layer cannot be packed.
    """
    layers, x = in_layers(network), torch.zeros(1, *shape)
    packed: list[nn.Module] = []
    for number, layer in enumerate(layers):
        (weighted,) = (part for part in layer if isinstance(part, Weighted))
        (norm,) = (part for part in layer if isinstance(part, Norm))
        if number == 0:
            normalize = next((part for part in layer if isinstance(part, Normalize)), nn.Identity())
            packed.append(first(normalize, weighted, norm))
        elif number + 1 < len(layers):
            packed.append(hidden(weighted, norm, x.shape))
        else:
            packed.append(last(weighted, norm, x.shape))
        x = layer(x)
    return nn.Sequential(*packed)


def in_layers(network: nn.Module) -> list[nn.Sequential]:
    """`network` on the CPU, split after each sign, as plain torch layers with weights ±1.

    Raises ValueError where a part is not a binary layer with BatchNorm and, except for the last, a sign.
    """
    parts: list[list[nn.Module]] = [[]]
    for leaf in leaves(network):
        parts[-1].append(plain(leaf) if isinstance(leaf, Weighted) else copy.deepcopy(leaf).cpu())
        if isinstance(leaf, Sign):
            parts.append([])
    for number, part in enumerate(parts):
        skipped = (nn.Flatten, nn.Identity, *([Normalize] if number == 0 else []))
        match [layer for layer in part if not isinstance(layer, skipped)]:
            case [nn.Conv2d() | nn.Linear(), nn.BatchNorm1d() | nn.BatchNorm2d(), Sign()]:
                continue
            case [nn.Linear(), nn.BatchNorm1d()] if 0 < number == len(parts) - 1:
                continue
        kinds = ", ".join(type(layer).__name__ for layer in part)
        raise ValueError(f"cannot be put in bits: {kinds}; each layer needs BatchNorm and, but for the last, a sign")
    return [nn.Sequential(*part).eval() for part in parts]


def leaves(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of nested `nn.Sequential` modules, in order."""
    if isinstance(module, nn.Sequential):
        for child in module:
            yield from leaves(child)
    else:
        yield module


def plain(layer: Weighted) -> Weighted:
    """A plain torch layer with the signs of a binary layer's weights.

    Raises ValueError unless the layer is binary, without groups or dilation, and pads with zeros.
    """
    bias = layer.bias is not None
    if isinstance(layer, BinaryLinear):
        made: Weighted = nn.Linear(layer.in_features, layer.out_features, bias)
    elif isinstance(layer, BinaryConv2d) and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros"):
        stride, padding = steps(layer)
        height, width = layer.kernel_size
        made = nn.Conv2d(layer.in_channels, layer.out_channels, (height, width), stride, padding, bias=bias)
    else:
        raise ValueError(f"cannot be put in bits: {layer}; layers need to be binary and plain")
    made.load_state_dict(layer.state_dict())
    made.weight.data = sign(layer.weight.detach().cpu())
    return made.requires_grad_(False).to(memory_format=torch.channels_last)


def first(normalize: nn.Module, layer: Weighted, norm: Norm) -> FromPixels:
    """The packed first layer, whose input is pixels."""
    direction, key = rises(norm, torch.zeros(len(layer.weight)), as_float, GREATEST)
    each = direction.view(-1, *[1] * (layer.weight.dim() - 1))
    return FromPixels(
        normalize,
        weight=layer.weight.detach() * each,
        bias=bias_of(layer) * direction,
        threshold=as_float(key),
        geometry=torch.tensor(steps(layer)),
    )


def hidden(layer: Weighted, norm: Norm, shape: torch.Size) -> Bits:
    """A packed hidden layer, whose float32 input has `shape` [N, C, H, W] or [N, C]."""
    weight = windows(layer, shape)
    most = weight[0].numel()
    direction, threshold = rises(norm, bias_of(layer), Tensor.float, most)
    missing = -len(threshold) % WORD
    return Bits(
        weight=in_bits(weight * direction.view(-1, 1, 1, 1)),
        threshold=functional.pad(threshold, (0, missing), value=most + 1).view(-1, WORD).int(),
        geometry=torch.tensor([weight.shape[1], *steps(layer)]),
    )


def last(layer: Weighted, norm: Norm, shape: torch.Size) -> ToLogits:
    """The packed last layer, which applies BatchNorm to its sums in float32."""
    weight = windows(layer, shape)
    assert norm.running_mean is not None, norm
    assert norm.running_var is not None, norm
    return ToLogits(
        weight=in_bits(weight),
        bias=bias_of(layer),
        norm=torch.stack([norm.running_mean, norm.running_var, norm.weight.detach(), norm.bias.detach()]),
        eps=torch.tensor(norm.eps, dtype=torch.float64),
        geometry=torch.tensor([weight.shape[1], *steps(layer)]),
    )


def steps(layer: Weighted) -> list[int]:
    """Stride and padding of a layer, [1, 0] if linear; raises ValueError unless equal in both directions."""
    if isinstance(layer, nn.Linear):
        return [1, 0]
    (stride, across), padding = layer.stride, layer.padding
    if stride != across or isinstance(padding, str) or padding[0] != padding[1]:
        raise ValueError(f"cannot be put in bits: {layer}; steps need to be the same both ways")
    return [stride, padding[0]]


def windows(layer: Weighted, shape: torch.Size) -> Tensor:
    """The weights as [outputs, C, H, W]; a linear layer is a convolution with one window of the input's size."""
    _, channels, *size = shape
    if isinstance(layer, nn.Conv2d):
        return layer.weight.detach()
    if layer.in_features == channels:
        return layer.weight.detach().view(-1, channels, 1, 1)
    return layer.weight.detach().view(-1, channels, *size)


def bias_of(layer: Weighted) -> Tensor:
    """The bias, zeros if there is none."""
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()


def rises(norm: Norm, bias: Tensor, value: Callable[[Tensor], Tensor], most: int) -> tuple[Tensor, Tensor]:
    """The least key in −most … most with norm(direction · value(key) + bias) ≥ 0, for each channel, by bisection.

    `value` increases with its key. Returns the direction, −1 where `norm` decreases and +1 elsewhere, and the key,
    which is most + 1 where no key satisfies it.
    """
    direction = torch.ones(len(bias))
    low, high = torch.full((len(bias),), -most), torch.full((len(bias),), most)

    def fires(key: Tensor) -> Tensor:
        given = direction * value(key) + bias
        made: Tensor = norm(given[None] if isinstance(norm, nn.BatchNorm1d) else given[None, :, None, None])
        return made.flatten() >= 0

    direction = torch.where(fires(low) & ~fires(high), -1.0, 1.0)
    high = high + 1
    while (low < high).any():
        middle = (low + high).div(2, rounding_mode="floor")
        enough = fires(middle) | (low >= high)
        low, high = torch.where(enough, low, middle + 1), torch.where(enough, middle, high)
    return direction, low


def as_float(key: Tensor) -> Tensor:
    """The float32 with rank `key` among all float32 in ascending order, where 0 has rank 0."""
    size: Tensor = key.abs().int().view(torch.float32)
    return key.sign() * size


def in_bits(weight: Tensor) -> Tensor:
    """Weights [outputs, C, H, W] as int64 [blocks, H, W, words, 64]; a bit is 1 where the weight is at least 0."""
    outputs, channels = weight.shape[:2]
    bits = functional.pad(
        (weight >= 0).permute(0, 2, 3, 1).byte(), (0, -channels % WORD, 0, 0, 0, 0, 0, -outputs % WORD)
    )
    words = np.packbits(bits.numpy(), axis=-1, bitorder="little").view("<i8").astype(np.int64)
    blocks = torch.from_numpy(words.reshape(-1, WORD, *words.shape[1:]))
    return blocks.permute(0, 2, 3, 4, 1).contiguous()


def from_bits(bits: Tensor, channels: int) -> Tensor:
    """Bits [N, H, W, words] as float32 ±1 [N, channels, H, W]."""
    flat = np.unpackbits(bits.numpy().astype("<i8").view(np.uint8), axis=-1, count=channels, bitorder="little")
    signs: Tensor = 2 * torch.from_numpy(flat).permute(0, 3, 1, 2).float() - 1
    return signs
