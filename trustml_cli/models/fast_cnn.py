"""A convolutional network for fast training on CIFAR-10."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.models.model import InputSpec, Model, require_images
from trustml_cli.system.ranges import require

EPSILON = 5e-4  # added to the mean squares before whitening divides by their root, as in the paper
AT_ONCE = 500  # images whose patches are unfolded at a time


@dataclass(frozen=True, kw_only=True)
class FastCnn(Model):
    """The network of Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498.

    A 2×2 convolution that whitens patches of training images, then three blocks of two 3×3 convolutions, with `width`,
    4 `width` and 4 `width` channels; for images of at least 8×8. BatchNorm has a bias but no scale, and the last linear
    layer, which has no bias, takes 1/9 of each channel's maximum. Unlike in the paper, BatchNorm has torch's default
    epsilon.

    `views` is the number of views of an image whose logits are averaged in eval mode (test-time augmentation): 1 is
    the image; 2 adds its mirror image; 6 adds both shifted by one pixel to the upper left and the lower right, at half
    weight. Attacks see the averaged logits.
    """

    width: int
    views: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "width", at_least=1)
        if self.views not in (1, 2, 6):
            raise ValueError(f"views: must be 1, 2 or 6, got {self.views}")

    def network(self, inputs: InputSpec) -> nn.Sequential:
        channels, height, width = require_images(inputs)
        side = min(height, width)
        if side < 8:
            raise ValueError(f"needs images of at least 8×8, got {height}×{width}")
        whiten = Whitening(channels)
        layers: list[nn.Module] = [whiten, nn.GELU()]
        before, side = whiten.out_channels, side - 1
        for after in (self.width, 4 * self.width, 4 * self.width):
            pool: nn.Module = nn.MaxPool2d(2) if side >= 2 else nn.Identity()
            layers += [nearly_identity(before, after), pool, shift(after), nn.GELU()]
            layers += [nearly_identity(after, after), shift(after), nn.GELU()]
            before, side = after, max(1, side // 2)
        return Views(self.views, *layers, Largest(1 / 9), nn.Linear(before, inputs.classes, bias=False))


class Whitening(nn.Conv2d):
    """A 2×2 convolution with fixed whitening weights and a trained bias, [C] to [8C] channels.

    After `initialize_from`, half of its channels, without their bias, are uncorrelated and of mean square 1 over the
    patches of the images; the others are their negatives. Before, they are the pixels of the patch and their
    negatives. From Page 2018, "How to Train Your ResNet".
    """

    def __init__(self, channels: int) -> None:
        values = 4 * channels
        super().__init__(channels, 2 * values, kernel_size=2)
        del self.weight
        self.weight: Tensor
        self.register_buffer("weight", self.both_signs(torch.eye(values)))
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def both_signs(self, directions: Tensor) -> Tensor:
        """Rows of `directions` [4C, 4C] and their negatives as convolution weights [8C, C, 2, 2]."""
        return torch.cat([directions, -directions]).view(2 * len(directions), self.in_channels, 2, 2)

    @torch.no_grad()
    def initialize_from(self, x: Tensor) -> None:
        """Set the weights so that they whiten the 2×2 patches of images x [N, C, H, W]."""
        values = 4 * self.in_channels
        products, patches = torch.zeros(values, values, dtype=torch.float64), 0
        for part in torch.split(x, AT_ONCE):
            flat = functional.unfold(part, 2).transpose(0, 1).flatten(1)
            products += (flat @ flat.T).double().cpu()
            patches += flat.shape[1]
        squares, directions = torch.linalg.eigh(products / patches)
        whitening = directions.T / (squares.clamp(min=0) + EPSILON).sqrt()[:, None]
        self.weight.copy_(self.both_signs(whitening))


class Views(nn.Sequential):
    """Layers whose logits, in eval mode, are averaged over `views` views of an image (see `FastCnn`)."""

    def __init__(self, views: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.views = views

    def initialize_from(self, x: Tensor) -> None:
        """See `Whitening.initialize_from`."""
        self[0].initialize_from(x)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.views == 1:
            return self.once(x)
        if self.views == 2:
            return self.both_sides(x)
        padded = functional.pad(x, [1] * 4, mode="reflect")
        moved = self.both_sides(padded[:, :, :-2, :-2]) + self.both_sides(padded[:, :, 2:, 2:])
        return self.both_sides(x) / 2 + moved / 4

    def both_sides(self, x: Tensor) -> Tensor:
        """Mean logits of images and their mirror images."""
        return (self.once(x) + self.once(x.flip(-1))) / 2

    def once(self, x: Tensor) -> Tensor:
        """Logits of the images themselves, without further views."""
        for layer in self:
            x = layer(x)
        return x


class Largest(nn.Module):
    """Global max pooling, [N, C, H, W] to [N, C], times `scale`.

    By index, not by `amax`: the gradient of `amax` looks for the values that equal the maximum. A compiled network
    computes them anew without rounding to bf16 or fp16, finds none, and divides by zero.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).max(2).values * self.scale


def nearly_identity(before: int, after: int) -> nn.Conv2d:
    """A 3×3 convolution without bias whose first `before` output channels copy its input; the others are random."""
    layer = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:before])
    return layer


def shift(channels: int) -> nn.BatchNorm2d:
    """BatchNorm with a trained bias but no scale, and momentum 0.4 for its running statistics."""
    layer = nn.BatchNorm2d(channels, momentum=0.4)
    del layer.weight
    layer.register_buffer("weight", torch.ones(channels))
    return layer
