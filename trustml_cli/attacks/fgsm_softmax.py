"""FGSM with the gradient of the softmax cross-entropy as it rounds in float32: a demonstration of gradient masking.

Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572. The gradient vanishes after defensive distillation: Carlini and
Wagner 2016, "Defensive Distillation is Not Robust to Adversarial Examples", arXiv 1607.04311.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.losses import cross_entropy, loss_gradient


@dataclass(frozen=True, kw_only=True)
class SoftmaxFGSM(FGSM):
    """`FGSM` along the gradient of torch's cross-entropy, which is softmax − one-hot by the logits.

    For a confident model the probability of the class rounds to 1 and the others to 0, so that the gradient is zero and
    the image is not changed. Accuracy under this attack therefore does not show that a model is robust; `FGSM` takes
    the same direction without rounding.
    """

    def loss_gradient(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        target = None if self.target is None else torch.full_like(y, int(self.target))
        return loss_gradient(model, x, partial(cross_entropy, y=y, target=target))[2]
