"""A network in front of a frozen classifier that removes universal perturbations from its input.

Akhtar, Liu and Mian 2018, "Defense against Universal Adversarial Perturbations", arXiv 1711.05929.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.geometry import unit_step
from trustml_cli.attacks.losses import Loss
from trustml_cli.attacks.universal_base import UniversalAttack, answers
from trustml_cli.attacks.universal_gradient import UniversalGradient
from trustml_cli.defences.defence import InFront
from trustml_cli.models.minibatches import fit_minibatches
from trustml_cli.system.ranges import require
from trustml_cli.training.wrapper import WrapperEpoch

NEAR = 0.1  # factor on the initial weights of the last layer


class RectifyingNetwork(nn.Module):
    """Maps images x [N, C, H, W] to x + r(x); r has one convolution, `blocks` residual blocks and two convolutions.

    All convolutions are 3×3 and keep height and width; the blocks have `width` channels. The network is initialised
    near the identity. Its output is not clipped, so that gradients do not vanish. The buffer `perturbations`
    [P, C, H, W] holds the perturbations that it was trained on.
    """

    perturbations: Tensor

    def __init__(self, shape: tuple[int, ...], blocks: int, width: int, perturbations: int) -> None:
        super().__init__()
        narrow = max(1, width // 4)
        last = conv(narrow, shape[0])
        with torch.no_grad():
            last.weight.mul_(NEAR)
        first = [conv(shape[0], width), nn.ReLU(), *(Block(width) for _ in range(blocks))]
        self.residual = nn.Sequential(*first, conv(width, narrow), nn.ReLU(), last)
        self.register_buffer("perturbations", torch.zeros(perturbations, *shape))

    def forward(self, x: Tensor) -> Tensor:
        rectified: Tensor = x + self.residual(x)
        return rectified


class Block(nn.Module):
    """A residual block: ReLU(x + two convolutions of x, each with BatchNorm)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            conv(width, width), nn.BatchNorm2d(width), nn.ReLU(), conv(width, width), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.change(x))


def conv(channels: int, out: int) -> nn.Conv2d:
    """A 3×3 convolution that keeps height and width."""
    return nn.Conv2d(channels, out, 3, padding=1)


@dataclass(frozen=True, kw_only=True)
class Rectifier(InFront):
    """Trains a rectifier so that the classifier predicts the same for the rectified image as for the clean one.

    The loss is the cross-entropy of the frozen classifier with its own prediction for the clean image, plus `fidelity`
    times the mean squared distance to the clean image (pixel units). The paper uses the first term alone. Then clean
    images may be changed as much as perturbed ones, which makes detection difficult for 8×8 digits.

    On average half of the images are clean; each of the others has a perturbation of size at most `epsilon` (pixel
    units) in `norm`. `perturbations` universal perturbations are learnt on the classifier: the first is untargeted, the
    others are targeted at one class after the other. Synthetic perturbations are random combinations of these, drawn
    for each batch; the paper precomputes them by random steps along learnt ones (its algorithm 1). Adam makes `epochs`
    passes over `training_images` training images in batches of `batch_size`, with cosine annealing from `lr` to 0.
    """

    norm: Norm
    epsilon: float
    perturbations: int
    training_images: int
    epochs: int
    batch_size: int
    lr: float
    blocks: int
    width: int
    fidelity: float

    def __post_init__(self) -> None:
        if self.norm not in UniversalAttack.norms:
            known = ", ".join(norm.value for norm in UniversalAttack.norms)
            raise ValueError(f"norm: must be one of {known} for this defence, got {self.norm.value}")
        require(self, "epsilon", "lr", above=0)
        require(self, "perturbations", "training_images", "epochs", "batch_size", "blocks", "width", at_least=1)
        require(self, "fidelity", at_least=0)

    @property
    def learns_from(self) -> int:
        return self.training_images

    def around(self, network: nn.Module, shape: tuple[int, ...]) -> nn.Sequential:
        """A new rectifying network followed by `network`, as submodules `rectifier` and `classifier`."""
        rectifier = RectifyingNetwork(shape, self.blocks, self.width, self.perturbations)
        return nn.Sequential(OrderedDict(rectifier=rectifier, classifier=network))

    def learn(self, part: nn.Module, network: nn.Module, x: Tensor, y: Tensor) -> Iterator[WrapperEpoch]:
        assert isinstance(part, RectifyingNetwork), type(part)
        seen, perturbations = answers(network, x), self.learnt(network, x)
        part.perturbations = perturbations
        optimizer = torch.optim.Adam(part.parameters(), lr=self.lr)
        steps = self.epochs * -(-len(x) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        told: list[tuple[float, int]] = []  # per batch: summed loss, and number of unchanged predictions

        def loss_of(rows: Tensor) -> Tensor:
            clean, noisy = x[rows], perturbed(x[rows], perturbations, self.epsilon, self.norm)
            rectified = part(torch.where(coins(clean), clean, noisy))
            logits = network(rectified)
            loss = functional.cross_entropy(logits, seen[rows])
            loss = loss + self.fidelity * functional.mse_loss(rectified, clean)
            told.append((loss.item() * len(rows), int((logits.argmax(1) == seen[rows]).sum())))
            return loss

        def shuffled() -> Tensor:
            return torch.randperm(len(x), device=x.device)

        for _ in range(self.epochs):
            part.train()
            lr = float(schedule.get_last_lr()[0])
            told.clear()
            fit_minibatches(loss_of, optimizer, shuffled, self.batch_size, schedule=schedule)
            part.eval()
            yield WrapperEpoch(lr, sum(loss for loss, _ in told) / len(x), sum(same for _, same in told) / len(x))

    def learnt(self, network: nn.Module, x: Tensor) -> Tensor:
        """Learn the perturbations [P, C, H, W], each from a random subset of x and with the next target in turn."""
        with torch.no_grad():
            classes = network(x[:1]).shape[1]
        goals = [None, *range(classes)]
        found = []
        for number in range(self.perturbations):
            learner = self.learner(goals[number % len(goals)])
            own = x[torch.randperm(len(x), device=x.device)[: learner.training_images]]
            found.append(learner.learn(network, own, self.epsilon))
        return torch.cat(found)

    def learner(self, target: int | None) -> UniversalGradient:
        """The attack that learns one universal perturbation."""
        return UniversalGradient(
            norm=self.norm,
            target=target,
            training_images=500,
            epochs=6,
            batch_size=100,
            step_size=0.3,
            momentum=0.9,
            loss=Loss.margin,
            cap=2.0,
        )


def perturbed(x: Tensor, learnt: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Add a random perturbation to each image x [N, C, H, W], clipped to [0, 1].

    Half of the perturbations, on average, are drawn from `learnt` [P, C, H, W]. The others are synthetic: sums of these
    with normally distributed weights, scaled to size `epsilon` (in L∞, their sign times `epsilon`).
    """
    as_learnt = learnt[torch.randint(len(learnt), (len(x),), device=x.device)]
    weights = torch.randn(len(x), len(learnt), device=x.device)
    synthetic = epsilon * unit_step(torch.einsum("np,pchw->nchw", weights, learnt), norm)
    return (x + torch.where(coins(x), as_learnt, synthetic)).clamp(0, 1)


def coins(x: Tensor) -> Tensor:
    """A fair coin toss for each image x [N, C, H, W]: bool [N, 1, 1, 1]."""
    return torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
