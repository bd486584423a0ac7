"""Kernel SHAP: Shapley values by a weighted linear regression on rows with some features taken from training rows.

Lundberg and Lee 2017, "A Unified Approach to Interpreting Model Predictions", arXiv 1705.07874; the package `shap`.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, Unsuitable
from trustml_cli.system.distribution import install_command
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class KernelShap(Explainer):
    """Contributions of the features of a table's rows, from `samples` coalitions of features each.

    Features outside a coalition are those of `references` random training rows, in turn; contributions add up to
    F(x) − mean F of these. Exact with 2^D − 2 samples for D features.
    """

    gradients: ClassVar = False

    samples: int
    references: int

    def __post_init__(self) -> None:
        require(self, "samples", "references", at_least=1)

    @property
    def learns_from(self) -> int:
        return self.references

    def fit(self, x: Tensor) -> "FittedKernelShap":
        return FittedKernelShap(method=self, background=x)

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        if len(shape) != 1:
            raise Unsuitable("needs a table, such as dataset=census")
        if find_spec("shap") is None:
            raise Unsuitable(f"needs the extra shap; install it with: {install_command('shap')}")

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("it takes its background from training rows first: call fit(rows)")

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        pairs = zip(*(torch.split(values, 1) for values in (x, target, baseline)), strict=True)
        return torch.cat([shapley_values(model, row, number, start, self.samples) for row, number, start in pairs])


@dataclass(frozen=True, kw_only=True)
class FittedKernelShap(Explainer):
    """The `method` with its `background` of training rows [M, D]."""

    method: KernelShap
    background: Tensor

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return shapley_values(model, x, target, self.background.to(x), self.method.samples)

    def contributions(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        return self.method.contributions(model, x, target, baseline)

    def from_background(self, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
        return self(model, x, target)


def shapley_values(model: nn.Module, x: Tensor, target: Tensor, background: Tensor, samples: int) -> Tensor:
    """Estimated Shapley values of the features of rows x [N, D] for the logits of classes `target` [N]; [N, D]."""
    import shap

    @torch.no_grad()
    def logits(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = model(torch.from_numpy(rows).to(x)).cpu().double().numpy()
        return found

    method = shap.KernelExplainer(logits, background.cpu().double().numpy())
    values = method.shap_values(x.cpu().double().numpy(), nsamples=samples, l1_reg=False, silent=True)
    of_class = torch.from_numpy(np.asarray(values)).to(x)[torch.arange(len(x)), :, target.cpu()]
    return of_class.view_as(x)
