"""A network in front of a frozen classifier that takes perturbations out of its images.

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
from trustml_cli.attacks.universal_base import UniversalAttack, answers
from trustml_cli.attacks.universal_gradient import UniversalGradient
from trustml_cli.defences.defence import InFront
from trustml_cli.models.minibatches import fit_minibatches
from trustml_cli.system.ranges import require
from trustml_cli.training.wrapper import WrapperEpoch

NEAR = 0.1  # of the usual weights, in the last layer at the start


class RectifyingNetwork(nn.Module):
    """Images [N, C, H, W] to x + r(x): a convolution, `blocks` residual blocks of `width` channels, two convolutions.

    All are 3×3 and keep the size. It begins near the identity, and its output is not clipped, so that a gradient passes
    everywhere. `perturbations` [P, C, H, W] are those that it learnt from, kept with the weights.
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
    """ReLU(x + two convolutions of x)."""

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
    """Learns to give the classifier an image that it answers as it answers the clean one.

    The loss is the classifier's cross-entropy with its own answer to the clean image, whose weights stay as they are,
    and `fidelity` times the mean squared distance to the clean image (pixel units). The paper has the first part alone;
    then clean images may be changed as much as perturbed ones, which leaves a detector of 8×8 digits little to go by.

    Half of the images are shown clean, the others with a perturbation of size `epsilon` (pixel units) at most in `norm`
    each. `perturbations` of them are learnt on the bare classifier, the first without a target and the others towards
    one class after the other; synthetic ones are made of these as they are needed, where the paper makes a set of them
    by random steps along learnt ones (its algorithm 1). Adam takes `epochs` rounds through `training_images` training
    images in batches of `batch_size`; its rate begins at `lr` and falls to 0 along half a cosine.
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
        """`network` behind a fresh rectifying network, as layers `rectifier` and `classifier`."""
        rectifier = RectifyingNetwork(shape, self.blocks, self.width, self.perturbations)
        return nn.Sequential(OrderedDict(rectifier=rectifier, classifier=network))

    def learn(self, part: nn.Module, network: nn.Module, x: Tensor, y: Tensor) -> Iterator[WrapperEpoch]:
        assert isinstance(part, RectifyingNetwork), type(part)
        seen, perturbations = answers(network, x), self.learnt(network, x)
        part.perturbations = perturbations
        optimizer = torch.optim.Adam(part.parameters(), lr=self.lr)
        steps = self.epochs * -(-len(x) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        told: list[tuple[float, int]] = []  # of each batch: the sum of its losses, and how many answers are unchanged

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
        """The perturbations [P, C, H, W] of the classifier, each from other images and towards another class."""
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
        """What finds a perturbation."""
        return UniversalGradient(
            norm=self.norm,
            target=target,
            training_images=500,
            epochs=6,
            batch_size=100,
            step_size=0.3,
            momentum=0.9,
            cap=2.0,
        )


def perturbed(x: Tensor, learnt: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Images x [N, C, H, W] with a perturbation each, clipped to [0, 1].

    Half of them are drawn from the `learnt` [P, C, H, W]. The others are synthetic: sums of these with random weights,
    positive or negative, brought to the edge of the ball.
    """
    as_learnt = learnt[torch.randint(len(learnt), (len(x),), device=x.device)]
    weights = torch.randn(len(x), len(learnt), device=x.device)
    synthetic = epsilon * unit_step(torch.einsum("np,pchw->nchw", weights, learnt), norm)
    return (x + torch.where(coins(x), as_learnt, synthetic)).clamp(0, 1)


def coins(x: Tensor) -> Tensor:
    """For each image x [N, C, H, W] true or false, half of the time each; bool [N, 1, 1, 1]."""
    return torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
