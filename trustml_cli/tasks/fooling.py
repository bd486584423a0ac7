"""task=fooling: noise images that are classified with high confidence (Nguyen et al. 2015, arXiv 1412.1897).

They are made from Gaussian noise by one gradient step (Goodfellow et al. 2015, arXiv 1412.6572, appendix) or many.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.measure import sizes
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.metrics.columns import Columns, conditions, headline, lower, neither
from trustml_cli.metrics.intervals import average, proportion
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.inference import logits_of, predicted_classes
from trustml_cli.models.model import Model
from trustml_cli.plots.fooling import fooling_images, fooling_rates
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH
from trustml_cli.training.trainer import Trainer

NOISE, ALL = "noise", "all"


@dataclass(frozen=True)
class Fooling:
    """Images [n, C, H, W], the model's softmax probability of the target [n], and whether it is predicted [n]."""

    images: Tensor
    confidence: Tensor
    taken: Tensor
    """Whether the predicted class is the target, bool [n]."""


@dataclass(frozen=True, kw_only=True)
class Fool:
    """Attack `noise_images` noise images (mean 0.5, deviation `std`) towards each class in `target`, within `epsilon`.

    An image fools the model if its target is predicted with a confidence of at least `confidence`.
    """

    columns: ClassVar[Columns] = (
        *conditions("method", "target", "epsilon"),
        *headline(lower("fooling_rate")),
        *lower("target_rate", "mean_target_confidence"),
        *neither("mean_l2", "mean_linf"),
        *lower("seconds"),
    )

    target: list[int | str] | None
    noise_images: int
    std: float
    epsilon: float
    confidence: float

    def __post_init__(self) -> None:
        require(self, "noise_images", at_least=1)
        require(self, "std", "epsilon", at_least=0)
        require(self, "confidence", at_least=0, at_most=1)

    def __call__(
        self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer, methods: Mapping[str, Attack]
    ) -> None:
        """Write a row for all classes of each method, then for each class alone, and the same for unchanged noise."""
        data = context.load(dataset)
        if len(data.shape) != 3:
            raise InputError("dataset: holds no images; noise is made into images only")
        targets = self.targets(data)
        context.require_gradients(data, model, "task")
        check_methods(context, methods, data, model)
        network = context.train_or_load(context.spec(data, model, trainer)).network
        random = torch.Generator().manual_seed(context.seed)
        noise = (0.5 + self.std * torch.randn(self.noise_images, *data.shape, generator=random)).clamp(0, 1)
        noise = noise.to(context.hardware.device)

        found: dict[str, dict[str, Fooling]] = {}
        seconds: dict[str, dict[str, float]] = {}
        for method, attack in {NOISE: None, **methods}.items():
            found[method], seconds[method] = {}, {}
            for number in Progress(targets, desc=method.replace("_", " "), unit="class"):
                start, label = perf_counter(), data.classes[number]
                with seeded(context.seed):
                    images = noise if attack is None else self.driven(network, noise, replace(attack, target=number))
                found[method][label] = judged(network, images, number)
                seconds[method][label] = perf_counter() - start
        everything = noise.repeat(len(targets), 1, 1, 1)
        for method, by in found.items():
            self.row(context, method, ALL, together([*by.values()]), everything, sum(seconds[method].values()))
        for method, by in found.items():
            for label, one in by.items():
                self.row(context, method, label, one, noise, seconds[method][label])
        shown = {f"{name}_{label}": one.images for name in methods for label, one in found[name].items()}
        context.record.artifact("fooling", {NOISE: noise, **shown})
        self.check(context, found)
        subject = context.record.subject
        first = {
            name: {label: (one.images[0], float(one.confidence[0]), bool(one.taken[0])) for label, one in by.items()}
            for name, by in found.items()
        }
        context.record.plot("images", fooling_images(first, subject, self.epsilon))
        rates = {
            name: {label: self.fools(one).double().mean().item() for label, one in by.items()}
            for name, by in found.items()
        }
        context.record.plot("rates", fooling_rates(rates, subject, self.noise_images, self.confidence))

    def targets(self, data: Dataset) -> list[int]:
        """The target classes by number, each once."""
        if self.target is None:
            return list(range(len(data.classes)))
        if not self.target:
            raise InputError("task.target: needs at least one class (or null for all)")
        with prefix_errors("task.target"):
            return list(dict.fromkeys(data.class_number(name) for name in self.target))

    def driven(self, network: nn.Module, noise: Tensor, attack: Attack) -> Tensor:
        """The noise after the attack towards its target."""
        parts = []
        for part in torch.split(noise, BATCH):
            with torch.no_grad():
                seen = network(part).argmax(1)
            parts.append(attack(network, part, seen, self.epsilon).detach())
        return torch.cat(parts)

    def fools(self, fooling: Fooling) -> Tensor:
        """Which images are classified as the target with at least `confidence`, bool [n]."""
        return fooling.taken & (fooling.confidence >= self.confidence)

    def row(self, context: Context, method: str, target: str, fooling: Fooling, noise: Tensor, seconds: float) -> None:
        """Write one row of metrics.csv."""
        change = sizes(fooling.images - noise.cpu())
        n = len(fooling.taken)
        rate = proportion("fooling_rate", int(self.fools(fooling).sum()), n)
        context.record.metrics(
            {"method": method, "target": target, "epsilon": self.epsilon},
            **rate,
            **proportion("target_rate", int(fooling.taken.sum()), n),
            **average("mean_target_confidence", fooling.confidence),
            **average("mean_l2", change[Norm.l2]),
            **average("mean_linf", change[Norm.linf]),
            seconds=seconds,
        )

    def check(self, context: Context, found: Mapping[str, Mapping[str, Fooling]]) -> None:
        """Check that each method fools the model more often than the noise it starts from."""
        rate = {name: self.fools(together([*by.values()])).double().mean().item() for name, by in found.items()}
        for name in found:
            if name != NOISE:
                figure = f"{in_percent(rate[name])} against {in_percent(rate[NOISE])}"
                context.record.check(f"{name} fools more than the noise itself", rate[name] > rate[NOISE], figure)


def check_methods(context: Context, methods: Mapping[str, Attack], data: Dataset, model: Model) -> None:
    """Raise `InputError` for a method that needs training images, has no targeted form or a target of its own."""
    with prefix_errors("model"), seeded(context.seed):
        fresh = model.build(input_spec(data))
    for name, attack in methods.items():
        if attack.target is not None:
            raise InputError(f"methods.{name}.target: must be null; task.target names the classes")
        if attack.learns_from:
            raise InputError(f"methods.{name}: learns from training images, and noise is changed without; use pgd")
        try:
            replace(attack, target=0)
        except ValueError as error:
            raise InputError(
                f"methods.{name}: has no target, and noise is driven to a chosen class; use pgd"
            ) from error
        with prefix_errors(f"methods.{name}"):
            attack.check(fresh, data.shape)


@torch.no_grad()
def judged(network: nn.Module, images: Tensor, target: int) -> Fooling:
    """Evaluate the network on the images."""
    logits = torch.cat([logits_of(network, part) for part in torch.split(images, BATCH)]).cpu()
    return Fooling(images.cpu(), logits.softmax(1)[:, target], predicted_classes(logits) == target)


def together(each: list[Fooling]) -> Fooling:
    """Concatenate the results of several targets."""
    return Fooling(*(torch.cat([getattr(one, name) for one in each]) for name in ("images", "confidence", "taken")))
