"""Black-box attack through a substitute network that is trained only on the victim's labels.

Papernot, McDaniel, Goodfellow, Jha, Celik and Swami 2017, arXiv 1602.02697.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trustml_cli.attacks.attack import Access, Attack, Norm, input_gradient
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.universal_base import answered, answers
from trustml_cli.models.inference import logits_of
from trustml_cli.models.minibatches import fit_minibatches
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Substitute(Attack):
    """FGSM on a substitute network; the adversarial images transfer to the victim.

    The victim labels `training_images` images, and the substitute is trained on them for `epochs` epochs. Then each of
    `rounds` rounds doubles the images by Jacobian-based augmentation, up to `labels` images in total: a step of `jump`
    along the sign of the gradient of the label's probability, clipped to [0, 1]. The victim labels the new images, and
    a new substitute is trained. The attack itself does not query the victim.

    The substitute has two convolutions with max pooling and one hidden layer, of `width` channels, twice that, and
    eight times that; it is trained by Adam in batches of `batch_size`.

        attack = Substitute(
            norm=Norm.linf, target=None, training_images=150, rounds=5, labels=4800, jump=0.2, epochs=6, batch_size=64,
            lr=0.002, width=16,
        )
        x_adv = attack.fit(model, own_x, own_y)(model, x, y, epsilon=0.3)
    """

    norms: ClassVar[tuple[Norm, ...]] = FGSM.norms
    access: ClassVar[Access] = Access.query

    training_images: int
    rounds: int
    labels: int
    jump: float
    epochs: int
    batch_size: int
    lr: float
    width: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "training_images", "epochs", "batch_size", "width", at_least=1)
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
        """Train the substitute on x [n, C, H, W]; y is ignored, because the victim labels the images."""
        return TransferredAttack(norm=self.norm, target=self.target, substitute=self.learn(model, x))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        raise RuntimeError("the substitute is trained first: call prepared(model, x, y)")

    def learn(self, model: nn.Module, x: Tensor) -> nn.Module:
        """The substitute after the last round, frozen and in eval mode."""
        with torch.no_grad():
            classes = logits_of(model, x[:1]).shape[1]
        x, labels = answered(model, x)
        for round_ in range(self.rounds + 1):
            substitute = self.trained(network(tuple(x.shape[1:]), classes, self.width).to(x.device), x, labels)
            room = self.labels - len(x)
            if round_ == self.rounds or room < 1:
                break
            chosen = torch.randperm(len(x), device=x.device)[:room]
            # the ascent direction of the label's probability is the descent direction of its cross-entropy
            uphill = -input_gradient(substitute, x[chosen], labels[chosen])
            further = (x[chosen] + self.jump * uphill.sign()).clamp(0, 1)
            said = answers(model, further)
            x, labels = torch.cat([x, further[said >= 0]]), torch.cat([labels, said[said >= 0]])
        return substitute

    def trained(self, substitute: nn.Module, x: Tensor, labels: Tensor) -> nn.Module:
        """Train the network for `epochs` epochs on the victim's labels; return it frozen, in eval mode."""
        optimizer = torch.optim.Adam(substitute.train().parameters(), lr=self.lr)
        fit_minibatches(
            lambda rows: cross_entropy(substitute(x[rows]), labels[rows]),
            optimizer,
            lambda: torch.randperm(len(x), device=x.device),
            self.batch_size,
            self.epochs,
        )
        return substitute.eval().requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class TransferredAttack(Attack):
    """FGSM on a trained `substitute`; the victim is not queried."""

    norms: ClassVar = Substitute.norms
    access: ClassVar = Substitute.access

    substitute: nn.Module

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        return FGSM(norm=self.norm, target=self.target)(self.substitute, x, y, epsilon)


def network(shape: tuple[int, ...], classes: int, width: int) -> nn.Sequential:
    """Two convolutions with ReLU and max pooling, one hidden layer, and a linear output layer."""
    channels, height, rest = shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * width * (height // 4) * (rest // 4), 8 * width), nn.ReLU(),
        nn.Linear(8 * width, classes),
    )  # fmt: skip
