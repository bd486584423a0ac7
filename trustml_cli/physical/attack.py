"""Patterns that are put into a scene: what a patch and a sticker share."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trustml_cli.physical.transformations import Pose, Ranges
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class PhysicalAttack(Ranges):
    """A pattern that makes scenes be taken for the class `target`, from wherever they are seen.

    Learnt on `training_images` images by `steps` steps of Adam (`lr`), each on `batch_size` of them in poses drawn from
    the ranges: the mean cross-entropy with the target falls, and with it `penalty`. Subclasses say where the pattern
    is.
    """

    target: int | str
    training_images: int
    steps: int
    batch_size: int
    lr: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "training_images", "steps", "batch_size", at_least=1)
        require(self, "lr", above=0)

    @property
    def ranges(self) -> Ranges:
        """What poses are drawn from."""
        return Ranges(rotation=self.rotation, scale=self.scale, place=self.place, brightness=self.brightness)

    @abstractmethod
    def pattern_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the pattern for images of this shape. Raises ValueError where it does not fit them."""

    @abstractmethod
    def where(self, shape: tuple[int, ...]) -> Tensor:
        """1 where the pattern covers what is below it, 0 elsewhere, [1, h, w] as the pattern."""

    @abstractmethod
    def apply(self, x: Tensor, pattern: Tensor | None, pose: Pose) -> Tensor:
        """Scenes x [n, C, H, W] with the pattern (one, or n of them) in them, seen in `pose`; bare where it is None."""

    @abstractmethod
    def penalty(self, x: Tensor, pattern: Tensor) -> Tensor:
        """What the pattern costs beside missing its goal, a number."""

    def finished(self, pattern: Tensor) -> Tensor:
        """The pattern as it is made in the end."""
        return pattern

    def shown(self, pattern: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The pattern to look at, grey where it is not."""
        return pattern.where(self.where(shape).to(pattern) > 0, 0.5)

    def learn(self, model: nn.Module, x: Tensor) -> Tensor:
        """The pattern learnt from images x [n, C, H, W], values in [0, 1], starting from grey noise."""
        pattern = (0.5 + 0.1 * torch.randn(self.pattern_shape(tuple(x.shape[1:])), device=x.device)).clamp(0, 1)
        pattern.requires_grad_(True)
        optimizer = torch.optim.Adam([pattern], lr=self.lr)
        for _ in range(self.steps):
            shown = x[torch.randint(len(x), (self.batch_size,), device=x.device)]
            pose = self.ranges.draw(len(shown), x.device)
            with torch.enable_grad():
                logits = model(self.apply(shown, pattern, pose))
                goal = torch.full((len(shown),), int(self.target), device=x.device)
                loss = cross_entropy(logits, goal) + self.penalty(shown, pattern)
                (pattern.grad,) = torch.autograd.grad(loss, pattern)
            optimizer.step()
            with torch.no_grad():
                pattern.clamp_(0, 1)
        return self.finished(pattern.detach())
