"""Shared parts of the tasks that attack a network: their keys, their preliminary checks, and the attack."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.adaptive import Backward, adaptive_view
from trustml_cli.attacks.attack import Access, Attack
from trustml_cli.attacks.attack_view import IMAGES, choose_attack_view
from trustml_cli.attacks.measure import QueryCounter, attack_curve
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split, random_subset
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.models.inference import NoGradient, gives_gradients
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.attacker_images import AttackerImages
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.evaluation import RobustnessEvaluation
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import batch_size

log = logging.getLogger(__name__)
A = TypeVar("A", bound=Attack)

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class RobustnessTask:
    """Attack `images` random test images (None: all) at each `epsilon` (pixel units), and judge the result.

    With a target, images of its own class are left out. `check_images` of the images are attacked again, also by
    other attacks, to check whether the robust accuracy is reliable (0: no such checks). All attacks ask for the mean of
    `eot` answers, which a randomised network needs, and differentiate the network by `backward`. `examples` images are
    shown for each epsilon, and the loss surfaces around `surfaces` images. The first `save` images, or all, are kept in
    artifacts/ with their labels and the network's predictions. Attacks that are fitted to training images use
    `attacker_images`.
    """

    columns: ClassVar[Columns] = (
        *sometimes(conditions("defence")),
        *conditions("attack", "norm", "epsilon"),
        *sometimes(conditions("scored_on", "attacker_images")),
        *logged(higher("clean_accuracy")),
        *headline(higher("robust_accuracy")),
        *lower("attack_success_rate"),
        *neither("mean_l0", "mean_l2", "mean_linf", "mean_confidence"),
        *lower("seconds"),
        *neither("mean_l1", "queries", "gradients"),
        *lower("sure_success_rate"),
        *sometimes(higher("median_distance")),
        *sometimes(neither("white_box_success_rate")),
    )

    epsilon: list[float]
    images: int | None
    check_images: int
    examples: int
    save: int | str
    surfaces: int
    eot: int
    backward: Backward
    attacker_images: AttackerImages

    def __post_init__(self) -> None:
        check_epsilons(self.epsilon)
        require(self, "check_images", "surfaces", at_least=0)
        require(self, "images", "examples", "eot", at_least=1)
        if self.save != ALL and (isinstance(self.save, str) or self.save < self.examples):
            raise ValueError(f"save: must be all, or at least task.examples ({self.examples}), got {self.save}")

    def prepare(
        self, context: Context, data: Dataset, model: Model, attack: Attack, defence: Defence
    ) -> tuple[Attack, Split]:
        """The attack with its target as a class number, and the test images to attack.

        Raises `InputError` where the attack does not support this model, data set or target.
        """
        attack, test = resolve_target(attack, data)
        with prefix_errors("model"), seeded(context.seed):
            fresh = defence.around(model.build(input_spec(data)), data.shape)
        with prefix_errors("task"):
            asked = adaptive_view(fresh, self.eot, self.backward)
        with prefix_errors("attack"):
            attack.check(fresh, data.shape)
            check_gradient_access(attack, asked.network if asked else fresh, data.shape)
        return attack, test if self.images is None else random_subset(test, self.images, context.seed)

    def evaluate(
        self,
        context: Context,
        network: nn.Module,
        attack: Attack,
        data: Dataset,
        images: Split,
        transfer_models: Mapping[str, nn.Module] | None = None,
    ) -> RobustnessEvaluation:
        """Run the attack at every epsilon, smallest first; if it needs fitting, fit it to training images of `data`.

        The networks `transfer_models` are evaluated on the same adversarial images.
        """
        count = batch_size(images, context.hardware.device)

        def stream() -> Progress[tuple[Tensor, Tensor]]:
            shown = batches(images.on(context.hardware.device), count, context.hardware.device)
            return Progress(shown, total=-(-len(images) // count), desc="attacking", unit="batch")

        learning, asked = QueryCounter(network), None
        if any(self.epsilon):
            attack, learning = fit_attack(context, attack, network, data)
        with seeded(context.seed):
            if any(self.epsilon):
                some = next(batches(images, IMAGES, context.hardware.device))
                asked = adaptive_view(network, self.eot, self.backward)
                asked = asked or choose_attack_view(network, *some, context.hardware.compiled)
            kept = len(images) if isinstance(self.save, str) else self.save
            epsilons = sorted(set(self.epsilon))
            curve = attack_curve(network, attack, stream(), epsilons, kept, transfer_models, asked)
            full_access = attack.white_box
            rival = (
                attack_curve(network, full_access, stream(), epsilons, 0, asked=asked, clean=curve.clean)
                if full_access
                else None
            )
        assert curve.asked is not None
        context.record.note(attack_asked=curve.asked.which)
        if curve.batch_size is not None:
            log.warning("memory ran out: batches of %d images were cut to %d", count, curve.batch_size)
            context.record.note(batch_size=curve.batch_size)
        if learning.queries:
            context.record.note(learning_queries=learning.queries, learning_gradients=learning.gradients)
        return RobustnessEvaluation(context, network, attack, data, images, curve, rival)


def check_epsilons(values: list[float]) -> None:
    """Raise ValueError unless there is at least one epsilon and all are finite and at least 0."""
    if not values:
        raise ValueError("epsilon: needs at least one number")
    for value in values:
        if not (value >= 0 and isfinite(value)):
            raise ValueError(f"epsilon: must be a number of at least 0, got {value:g}")


def check_pixels(data: Dataset) -> None:
    """Raise `InputError` for a table: its columns have no common unit for epsilon, and are not in [0, 1]."""
    if len(data.shape) != 3:
        raise InputError("dataset: needs images, because epsilon is in pixel units; for tables see task=debias")


def check_gradient_access(attack: Attack, network: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise `NoGradient` if the attack needs gradients and the network, left in eval mode, has none by the image."""
    if attack.access in (Access.white_box, Access.transfer) and not gives_gradients(
        network.eval(), torch.full((1, *shape), 0.5)
    ):
        raise NoGradient


def resolve_target(attack: A, data: Dataset) -> tuple[A, Split]:
    """The attack with its target as a class number, and the test images not of that class.

    Raises `InputError` for a table (`check_pixels`), and where all test images are of that class.
    """
    check_pixels(data)
    if attack.target is None:
        return attack, data.test
    with prefix_errors("attack.target"):
        target = data.class_number(attack.target)
    test = data.test.subset((data.test.labels != target).nonzero()[:, 0])
    if not len(test):
        raise InputError("attack.target: every test image is of this class; choose another")
    return replace(attack, target=target), test


def fit_attack(context: Context, attack: Attack, network: nn.Module, data: Dataset) -> tuple[Attack, QueryCounter]:
    """The attack, fitted to random training images if it needs that, and the counter of the queries for it."""
    counted = QueryCounter(network)
    if not attack.learns_from:
        return attack, counted
    own = random_subset(data.train, attack.learns_from, context.seed)
    x, y = next(batches(own, len(own), context.hardware.device))
    with seeded(context.seed):
        return attack.fit(counted, x, y), counted
