"""The base class of physical attacks, which place a pattern in the scene (patch and sticker)."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trustml_cli.models.inference import logits_of, predicted_classes
from trustml_cli.physical.transformations import Pose, Ranges
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class PhysicalAttack(Ranges):
    """A pattern that makes the network predict the class `target` for scenes under random transformations.

    It is trained on `training_images` images by `steps` steps of Adam, whose learning rate falls from `lr` to zero
    along a cosine. Each step minimises the mean cross-entropy with the target plus `penalty` on `batch_size` images in
    random poses. Of `restarts` patterns the one with the highest success rate on these images is kept. Subclasses
    define where the pattern is. If `target` is None, the caller chooses it by `success_rates`.
    """

    target: int | str | None
    training_images: int
    steps: int
    batch_size: int
    lr: float
    restarts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "training_images", "steps", "batch_size", "restarts", at_least=1)
        require(self, "lr", above=0)

    @property
    def ranges(self) -> Ranges:
        """The ranges that poses are drawn from."""
        return Ranges(rotation=self.rotation, scale=self.scale, place=self.place, brightness=self.brightness)

    @abstractmethod
    def pattern_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the pattern for images of this shape. Raises ValueError if it does not fit."""

    @abstractmethod
    def where(self, shape: tuple[int, ...]) -> Tensor:
        """The mask of the pattern: 1 where it is opaque, 0 elsewhere; [1, h, w] for a pattern [C, h, w]."""

    @abstractmethod
    def apply(self, x: Tensor, pattern: Tensor | None, pose: Pose) -> Tensor:
        """Scenes x [n, C, H, W] with the pattern (one, or n of them), transformed by `pose`; None: no pattern."""

    @abstractmethod
    def penalty(self, x: Tensor, pattern: Tensor) -> Tensor:
        """The scalar term that is added to the cross-entropy with the target."""

    def finished(self, pattern: Tensor) -> Tensor:
        """The final pattern, postprocessed after training."""
        return pattern

    def shown(self, pattern: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The pattern for display, grey (0.5) outside its mask."""
        return pattern.where(self.where(shape).to(pattern) > 0, 0.5)

    def learn(self, model: nn.Module, x: Tensor, stepped: Callable[[], None] = lambda: None) -> Tensor:
        """Train the pattern (values in [0, 1]) on images x [n, C, H, W]; `stepped` is called after every step."""
        found = [self.attempt(model, x, stepped) for _ in range(self.restarts)]
        return max(found, key=lambda pattern: self.success_rate(model, x, pattern)) if len(found) > 1 else found[0]

    def attempt(self, model: nn.Module, x: Tensor, stepped: Callable[[], None] = lambda: None) -> Tensor:
        """Train one pattern, starting from grey plus noise."""
        pattern = (0.5 + 0.1 * torch.randn(self.pattern_shape(tuple(x.shape[1:])), device=x.device)).clamp(0, 1)
        pattern.requires_grad_(True)
        optimizer = torch.optim.Adam([pattern], lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps)
        for _ in range(self.steps):
            shown = x[torch.randint(len(x), (self.batch_size,), device=x.device)]
            pose = self.ranges.draw(len(shown), x.device)
            with torch.enable_grad():
                logits = model(self.apply(shown, pattern, pose))
                goal = torch.full((len(shown),), self.goal, device=x.device)
                loss = cross_entropy(logits, goal) + self.penalty(shown, pattern)
                (pattern.grad,) = torch.autograd.grad(loss, pattern)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                pattern.clamp_(0, 1)
            stepped()
        return self.finished(pattern.detach())

    @property
    def goal(self) -> int:
        """The number of the target class."""
        assert self.target is not None, "the target is chosen before anything is learnt"
        return int(self.target)

    @torch.no_grad()
    def success_rate(self, model: nn.Module, x: Tensor, pattern: Tensor, batch: int = 250) -> float:
        """The share of images x [n, C, H, W] that are classified as the target, each in a random pose."""
        found = []
        for part in torch.split(x, batch):
            logits = logits_of(model, self.apply(part, pattern, self.ranges.draw(len(part), x.device)))
            found.append(predicted_classes(logits) == self.goal)
        return torch.cat(found).double().mean().item()

    def success_rates(
        self, model: nn.Module, x: Tensor, y: Tensor, classes: int, tried: Callable[[], None] = lambda: None
    ) -> list[float]:
        """The success rate for each class as the target, of a pattern that is trained for a fifth of the steps.

        Each is trained and measured on the images x [n, C, H, W] that are not of its target class by `y` [n]; 0 if
        there are none. `tried` is called after each.
        """
        rates = []
        for target in range(classes):
            short, others = replace(self, target=target, steps=-(-self.steps // 5), restarts=1), x[y != target]
            rates.append(short.success_rate(model, others, short.learn(model, others)) if len(others) else 0.0)
            tried()
        return rates
