"""A universal perturbation from a singular vector of a hidden layer's Jacobian.

Khrulkov and Oseledets 2018, "Art of singular vectors and universal adversarial perturbations", arXiv 1709.03582.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trustml_cli.attacks.geometry import unit_step
from trustml_cli.attacks.universal_base import UniversalAttack, answered, fooled
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class UniversalSingular(UniversalAttack):
    """The (p, q)-singular vector of the Jacobian of a hidden layer, stacked over a batch of images.

    v maximises ‖Jv‖_q subject to ‖v‖_p = ε, with p = ∞ or 2 from `norm`; it is computed by `epochs` iterations of the
    generalised power method (Boyd 1974) on `training_images` images (the paper takes 64). The layers are the outputs of
    the first `layers` modules without submodules. Of all layers, and of v and −v, what changes most predictions for
    the attacker's own images is returned. It has no targeted form.

        attack = UniversalSingular(norm=Norm.linf, target=None, training_images=64, epochs=20, layers=8, q=10)
        x_adv = attack.fit(model, own_x, own_y)(model, x, y, epsilon=10 / 255)
    """

    layers: int
    q: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            raise ValueError(f"target: must be null, got {self.target}; the method has no targeted form")
        require(self, "layers", at_least=1)
        require(self, "q", at_least=1)

    def learn(self, model: nn.Module, x: Tensor, epsilon: float) -> Tensor:
        x, seen = answered(model, x)
        found = [torch.zeros_like(x[:1])]
        for layer in leaves(model)[: self.layers]:
            v = self.singular(model, layer, x)
            found += [epsilon * v, -epsilon * v]
        return max(found, key=lambda v: fooled(model, x, v, seen).double().mean().item())

    def singular(self, model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
        """The vector [1, C, H, W] of length 1 in `norm`; zero for a layer that does not depend on the images."""
        v = unit_step(torch.randn_like(x[:1]), self.norm)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            shown = x.detach().requires_grad_(True)
            features = output_of(model, layer, shown)
            if not features.requires_grad:
                return torch.zeros_like(v)
            dual = torch.zeros_like(features, requires_grad=True)
            # Jᵀu is linear in u, so that its derivative by u in the direction v is Jv
            (back,) = torch.autograd.grad((features * dual).sum(), shown, create_graph=True)
            for _ in range(self.epochs):
                (forward,) = torch.autograd.grad((back * v).sum(), dual, retain_graph=True)
                largest = forward.abs().amax()
                if not largest:
                    return torch.zeros_like(v)
                weights = forward.sign() * (forward.abs() / largest) ** (self.q - 1)
                (gradient,) = torch.autograd.grad((features * weights).sum(), shown, retain_graph=True)
                v = unit_step(gradient.sum(0, keepdim=True), self.norm)
        return v


def leaves(model: nn.Module) -> list[nn.Module]:
    """The modules without submodules, in the order in which they were added."""
    return [module for module in model.modules() if next(module.children(), None) is None]


def output_of(model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """The output of `layer` for inputs x of `model`: of several tensors the first; 0 where there is none."""
    found = [torch.zeros(())]

    def keep(_layer: nn.Module, _inputs: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output  # a recurrent layer returns its state, too
        if isinstance(first, Tensor):
            found.append(first)

    hook = layer.register_forward_hook(keep)
    try:
        model(x)
    finally:
        hook.remove()
    return found[-1]
