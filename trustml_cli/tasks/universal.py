"""task=universal: universal perturbations and their transfer between models."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack
from trustml_cli.attacks.geometry import unit_step
from trustml_cli.attacks.measure import QueryCounter, sizes
from trustml_cli.attacks.universal_base import TransferResult, UniversalAttack, answers, changed, fooled
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, random_subset
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither
from trustml_cli.metrics.intervals import by_image, proportion
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.plots.universal import fooled_images, perturbations, transfer_matrix
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.attacker_images import (
    AttackerImages,
    attacker_condition,
    remark_on_checkpoints,
    split_for_attacker,
)
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.robustness import check_epsilons, resolve_target
from trustml_cli.training.predict import BATCH
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TransferUniversal:
    """Fit a perturbation at each `epsilon` (pixel units) to `model` and to those named in `models`.

    Each is scored on all of them, beside noise of the same size. Each figure shows `examples` images. Perturbations
    are fitted to `attacker_images`.
    """

    columns: ClassVar[Columns] = (
        *conditions("attack", "norm", "found_on", "scored_on", "epsilon", "attacker_images"),
        *headline(lower("fooling_rate")),
        *higher("clean_accuracy", "robust_accuracy"),
        *logged(neither("noise_fooling_rate")),
        *neither("own_fooling_rate", "size"),
    )

    models: list[str] | None
    epsilon: list[float]
    examples: int
    attacker_images: AttackerImages

    def __post_init__(self) -> None:
        check_epsilons(self.epsilon)
        require(self, "examples", at_least=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        attack: Attack,
        others: Mapping[str, Model],
    ) -> None:
        """Write a row for each epsilon, model that a perturbation was fitted to, and model that it is scored on."""
        if not isinstance(attack, UniversalAttack):
            raise InputError("attack: makes another perturbation for each image; use universal_search")
        models = {context.record.choices["model"]: model}
        models |= {name: other for name, other in others.items() if name not in models}
        data = context.load(dataset)
        learner, _ = resolve_target(attack, data)
        data, known = split_for_attacker(data, attack.learns_from, self.attacker_images, context.seed)
        remark_on_checkpoints(context, models.values(), self.attacker_images)
        for each in models.values():
            context.require_gradients(data, each, "attack")
        networks = {
            name: context.train_or_load(context.spec(data, each, trainer), stage=name).network
            for name, each in models.items()
        }

        carried, asked = self.learnt(context, learner, networks, known)
        context.record.note(learning_queries={name: counted.queries for name, counted in asked.items()})
        context.record.note(learning_gradients={name: counted.gradients for name, counted in asked.items()})
        self.rows(context, learner, carried, networks, data)

        tensors = {f"{one.found_on}_epsilon_{one.epsilon:g}": one.perturbation[0] for one in carried}
        context.record.artifact("perturbations", tensors)
        subject = f"{context.record.choices['attack']} on {context.record.choices['dataset']}"
        norm = attack.norm.value
        for epsilon in sorted(set(self.epsilon)):
            of_epsilon = [one for one in carried if one.epsilon == epsilon]
            context.record.plot(f"transfer_epsilon_{epsilon:g}", transfer_matrix(of_epsilon, subject, norm))
        context.record.plot("perturbations", perturbations(carried, subject, norm))
        some = random_subset(data.test, self.examples, context.seed)
        x, _ = next(batches(some, self.examples, context.hardware.device))
        first = carried[0].found_on
        own = sorted((one for one in carried if one.found_on == first), key=lambda one: one.epsilon)
        context.record.plot("examples", fooled_images(x, own, networks[first], data.classes, subject))

    def learnt(
        self, context: Context, attack: UniversalAttack, networks: Mapping[str, nn.Module], data: Dataset
    ) -> tuple[list[TransferResult], dict[str, QueryCounter]]:
        """A perturbation for each epsilon and model, from the same training images; and each model's query counter."""
        own = random_subset(data.train, attack.learns_from, context.seed)
        x, y = next(batches(own, len(own), context.hardware.device))
        asked = {name: QueryCounter(network) for name, network in networks.items()}
        ready = {name: attack.fit(counted, x, y) for name, counted in asked.items()}
        pairs = [(name, epsilon) for name in ready for epsilon in sorted(set(self.epsilon))]
        carried = []
        for name, epsilon in Progress(pairs, desc="learning", unit="perturbation"):
            with seeded(context.seed):
                v = ready[name].perturbation(epsilon)
            fell = fooled(networks[name], x, v, answers(networks[name], x)).cpu()
            share = f"{in_percent(fell.double().mean().item())} of its own {len(x):,} images"
            log.info("found on %s at epsilon %g: fools %s", name, epsilon, share)
            carried.append(TransferResult(name, epsilon, v, fell, {}))
        return carried, asked

    def rows(
        self,
        context: Context,
        attack: UniversalAttack,
        carried: list[TransferResult],
        networks: Mapping[str, nn.Module],
        data: Dataset,
    ) -> None:
        """Score every perturbation on every network, beside noise."""
        over, beaten = 0, 0
        for one in carried:
            size = sizes(one.perturbation)[attack.norm].item()
            over += size > one.epsilon * (1 + 1e-6)
            for name, network in networks.items():
                with seeded(context.seed):
                    by_measure = scored(context, network, data, one, attack)
                row: dict[str, Any] = {}
                for measure, values in by_measure.items():
                    row |= by_image(measure, values)
                row |= proportion("own_fooling_rate", int(one.own.sum()), len(one.own)) | {"size": size}
                where = {"found_on": one.found_on, "scored_on": name, "epsilon": one.epsilon}
                attacked_by = {"attack": context.record.choices["attack"], "norm": attack.norm.value}
                context.record.metrics(
                    {**attacked_by, **where, **attacker_condition(attack.learns_from, self.attacker_images)}, **row
                )
                one.rates[name] = row["fooling_rate"], row["noise_fooling_rate"]
                beaten += name == one.found_on and one.epsilon > 0 and row["fooling_rate"] <= row["noise_fooling_rate"]
        of = f"of {len(carried)} perturbations"
        context.record.check("perturbations are within epsilon", over == 0, f"{over} {of} are larger")
        context.record.check("perturbations fool more than noise where found", beaten == 0, f"{beaten} {of} do not")


def scored(
    context: Context, network: nn.Module, data: Dataset, one: TransferResult, attack: UniversalAttack
) -> dict[str, Tensor]:
    """Which test images get another class by the perturbation, are right before and after it, and fooled by noise.

    The noise is drawn for each image: ±epsilon in L∞, a random direction of the length epsilon in L2.
    """
    parts = []
    for x, y in batches(data.test, BATCH, context.hardware.device):
        before = answers(network, x)
        after = answers(network, (x + one.perturbation).clamp(0, 1))
        noise: Tensor = one.epsilon * unit_step(torch.randn_like(x), attack.norm)
        left = after.where(after >= 0, before)  # no valid answer is neither a success nor a failure
        parts.append((changed(before, after), before == y, left == y, fooled(network, x, noise, before)))
    names = ("fooling_rate", "clean_accuracy", "robust_accuracy", "noise_fooling_rate")
    return {name: torch.cat(part).cpu() for name, part in zip(names, zip(*parts, strict=True), strict=True)}
