"""Grad-CAM: where a convolutional layer's activations raise the logit.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", arXiv
1610.02391.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.explainers.explainer import Explainer, Unsuitable, logit_of
from trustml_cli.models.features import named_outputs


@dataclass(frozen=True, kw_only=True)
class GradCam(Explainer):
    """ReLU(Σ_c ᾱ_c·A_c) of the feature maps A of `layer`, ᾱ_c the mean gradient of the logit by map c, in image size.

    `layer` is the name of a module with feature maps [N, C, h, w]; None takes the last convolution that is called. The
    map is interpolated bilinearly and spread evenly over the image's channels. It is at least 0, says where and not how
    much, and adds up to nothing.
    """

    additive: ClassVar = False

    layer: str | None

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        if len(shape) != 3:
            raise Unsuitable("needs images")
        x = torch.full((1, *shape), 0.5)
        found = named_outputs(model, x)
        convolutions = [name for name, module in found.items() if isinstance(module, nn.Conv2d)]
        if self.layer is None and not convolutions:
            raise Unsuitable("needs a network with convolutions, such as model=cifar_cnn")
        if self.layer is not None and self.layer not in found:
            raise ValueError(f"layer: no layer {self.layer!r}; there are {', '.join(convolutions) or 'none'}")
        self(model, x, torch.zeros(1, dtype=torch.int64))

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        layer = self.found_layer(model, x)
        kept: list[Tensor] = []

        def hook(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
            kept.append(output)
            return output.clone()  # a following layer may work in place

        handle = layer.register_forward_hook(hook)
        try:
            with torch.enable_grad():
                total = logit_of(model, x.detach().requires_grad_(True), target).sum()
        finally:
            handle.remove()
        maps = kept[-1]
        if maps.dim() != 4:
            raise ValueError(f"layer: needs feature maps [N, C, H, W], and {self.layer} gives {list(maps.shape)}")
        (gradient,) = torch.autograd.grad(total, maps, allow_unused=True)
        if gradient is None:
            raise Unsuitable("needs a convolution that makes the logits; name one by explainer.grad_cam.layer")
        heat = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
        heat = functional.interpolate(heat, x.shape[2:], mode="bilinear", align_corners=False)
        return heat.expand_as(x) / x.shape[1]

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        return self(model, x, target)

    def found_layer(self, model: nn.Module, x: Tensor) -> nn.Module:
        """The module called `layer`, or the last convolution that is called for x."""
        if self.layer is not None:
            return model.get_submodule(self.layer)
        found = named_outputs(model, x[:1])
        convolutions: list[nn.Module] = [module for module in found.values() if isinstance(module, nn.Conv2d)]
        return convolutions[-1]
