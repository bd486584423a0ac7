"""A universal perturbation, learnt by stochastic gradient ascent on batches of images.

Shafahi, Najibi, Xu, Dickerson, Davis and Goldstein 2020, arXiv 1811.11304, algorithm 1; with the logit margin as
Zhang, Benz, Imtiaz and Kweon 2020, arXiv 2007.06189.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.attacks.losses import Loss, per_image_loss
from trustml_cli.attacks.universal_base import answered
from trustml_cli.attacks.universal_loop import UniversalLoop, targets
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class UniversalGradient(UniversalLoop):
    """Maximises the mean `loss` of the goal over a batch, with that of each image capped at `cap`.

    The cap removes the gradient of images that are already fooled. The paper caps the cross-entropy (`loss`
    ce_float32). v starts at zero, and the v of the best epoch is returned. Untargeted, each prediction is moved away
    from the original one; targeted, towards the target.

        attack = UniversalGradient(
            norm=Norm.linf, target=None, training_images=2000, epochs=10, batch_size=100, step_size=0.3,
            momentum=0.9, loss=Loss.margin, cap=2.0
        )
        x_adv = attack.fit(model, own_x, own_y)(model, x, y, epsilon=10 / 255)
    """

    loss: Loss
    cap: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "cap", above=0)

    def learn(self, model: nn.Module, x: Tensor, epsilon: float) -> Tensor:
        x, seen = answered(model, x)
        goal = None if self.target is None else int(self.target)
        return self.ascend(model, x, seen, goal, torch.zeros_like(x[:1]), epsilon, self.epochs)[0]

    def objective(self, logits: Tensor, seen: Tensor, goal: int | None) -> Tensor:
        return per_image_loss(self.loss, seen, targets(seen, goal), above_all=True)(logits).clamp(max=self.cap)
