"""Black-box attack through substitute networks that are trained only on the victim's labels.

Papernot, McDaniel, Goodfellow, Jha, Celik and Swami 2017, arXiv 1602.02697.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trustml_cli.attacks.attack import Access, Attack, Norm, input_gradient
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.mifgsm import MIFGSM
from trustml_cli.attacks.universal_base import answered, answers
from trustml_cli.models.inference import logits_of
from trustml_cli.models.mean_logits import MeanLogits
from trustml_cli.models.minibatches import fit_minibatches
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Substitute(Attack):
    """Momentum FGSM on networks that are trained on the victim's labels; the adversarial images transfer to the victim.

    The victim labels `training_images` images, and a substitute is trained on them for `epochs` epochs. Then each of
    `rounds` rounds doubles the images by Jacobian-based augmentation, up to `labels` images in total: a step of `jump`
    along the sign of the gradient of the label's probability, clipped to [0, 1]. The victim labels the new images, and
    a new substitute is trained. The last round trains `substitutes` networks, and the images are made on the mean of
    their logits (Liu, Chen, Liu and Song 2017, arXiv 1611.02770) by `steps` steps of `MIFGSM`. The attack itself does
    not query the victim.

    A substitute is a `strided` or a `pooled` network, with `width` channels in its first convolution; of several, every
    second one is pooled. Each is trained by Adam in batches of `batch_size`, with a one-cycle rate up to `lr`.

        attack = Substitute(
            norm=Norm.linf, target=None, training_images=2400, rounds=1, labels=4800, jump=0.2, substitutes=6, epochs=6,
            batch_size=64, lr=0.002, width=16, steps=10,
        )
        x_adv = attack.fit(model, own_x, own_y)(model, x, y, epsilon=0.3)
    """

    norms: ClassVar[tuple[Norm, ...]] = FGSM.norms
    access: ClassVar[Access] = Access.query

    training_images: int
    rounds: int
    labels: int
    jump: float
    substitutes: int
    epochs: int
    batch_size: int
    lr: float
    width: int
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "training_images", "substitutes", "epochs", "batch_size", "width", "steps", at_least=1)
        require(self, "rounds", at_least=0)
        if self.labels < self.training_images:
            raise ValueError(f"labels: must be at least training_images ({self.training_images}), got {self.labels}")
        require(self, "jump", "lr", above=0)

    def check(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or min(shape[1:]) < 4:
            raise ValueError("the substitute needs images of at least 4×4")

    @property
    def learns_from(self) -> int:
        return self.training_images

    def fit(self, model: nn.Module, x: Tensor, y: Tensor) -> "TransferredAttack":
        """Train the substitutes on x [n, C, H, W]; y is ignored, because the victim labels the images."""
        return TransferredAttack(
            norm=self.norm,
            target=self.target,
            substitute=self.learn(model, x),
            attack=MIFGSM(
                norm=self.norm, target=self.target, steps=self.steps, step_size=None, rel_path_length=1.0, decay=1.0
            ),
        )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        raise RuntimeError("the substitute is trained first: call fit(model, x, y)")

    def learn(self, model: nn.Module, x: Tensor) -> "MeanLogits":
        """The substitutes after the last round, frozen and in eval mode."""
        with torch.no_grad():
            classes = logits_of(model, x[:1]).shape[1]
        x, labels = answered(model, x)
        for _ in range(self.rounds):
            room = self.labels - len(x)
            if room < 1:
                break
            substitute = self.trained(strided, x, labels, classes)
            chosen = torch.randperm(len(x), device=x.device)[:room]
            # the ascent direction of the label's probability is the descent direction of its cross-entropy
            uphill = -input_gradient(substitute, x[chosen], labels[chosen])
            further = (x[chosen] + self.jump * uphill.sign()).clamp(0, 1)
            said = answers(model, further)
            x, labels = torch.cat([x, further[said >= 0]]), torch.cat([labels, said[said >= 0]])
        kinds = islice(cycle((strided, pooled)), self.substitutes)
        return MeanLogits([self.trained(kind, x, labels, classes) for kind in kinds]).eval()

    def trained(
        self, kind: Callable[[tuple[int, ...], int, int], nn.Module], x: Tensor, labels: Tensor, classes: int
    ) -> nn.Module:
        """A new network of a kind, trained for `epochs` epochs on the victim's labels; frozen, in eval mode."""
        substitute = kind(tuple(x.shape[1:]), classes, self.width).to(x.device)
        optimizer = torch.optim.Adam(substitute.parameters(), lr=self.lr)
        steps = self.epochs * -(-len(x) // self.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.lr, total_steps=steps + 1, cycle_momentum=False
        )
        fit_minibatches(
            lambda rows: cross_entropy(substitute(x[rows]), labels[rows]),
            optimizer,
            lambda: torch.randperm(len(x), device=x.device),
            self.batch_size,
            self.epochs,
            schedule,
        )
        return substitute.eval().requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class TransferredAttack(Attack):
    """`attack` on a trained `substitute`; the victim is not queried."""

    norms: ClassVar = Substitute.norms
    access: ClassVar = Substitute.access

    substitute: nn.Module
    attack: Attack

    @property
    def white_box(self) -> Attack:
        return FGSM(norm=self.norm, target=self.target)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        return self.attack(self.substitute, x, y, epsilon)


def strided(shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    """Four 3×3 convolutions, the last three with stride 2 and 2·`width` channels, and one hidden layer of 100."""
    channels, height, rest = shape
    layers: list[nn.Module] = []
    for out_channels, stride in ((width, 1), (2 * width, 2), (2 * width, 2), (2 * width, 2)):
        layers += [nn.Conv2d(channels, out_channels, 3, stride, padding=1), nn.ReLU()]
        channels, height, rest = out_channels, -(-height // stride), -(-rest // stride)  # padding 1 rounds halves up
    hidden = [nn.Flatten(), nn.Linear(channels * height * rest, 100), nn.ReLU()]
    return nn.Sequential(*layers, *hidden, nn.Linear(100, classes))


def pooled(shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    """Two 3×3 convolutions of `width` and 2·`width` channels with max pooling, and one hidden layer of 8·`width`."""
    channels, height, rest = shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * width * (height // 4) * (rest // 4), 8 * width), nn.ReLU(),
        nn.Linear(8 * width, classes),
    )  # fmt: skip
