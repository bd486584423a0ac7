"""task=conformal: sets of classes with a chosen coverage, and their coverage on perturbed images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Attack
from trustml_cli.calibration.conformal import Conformal, expected_coverage
from trustml_cli.config.instantiate import chosen
from trustml_cli.corruptions.corruption import Corruption
from trustml_cli.data.batches import as_pixels
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither
from trustml_cli.metrics.intervals import average, proportion
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.plots.conformal import coverage_under_perturbation, sets_of_images, sizes_of_sets
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.perturbed import CLEAN, UnderPerturbation
from trustml_cli.training.predict import Answers, predict
from trustml_cli.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class PredictSets(UnderPerturbation):
    """Answer with sets that hold the right class with probability `coverage`, by each method of `conformal`.

    The threshold comes from `calibration_images` training images, a fifth of them at most, that the network is not
    trained on. The sets of `examples` test images are shown.
    """

    columns: ClassVar[Columns] = (
        *conditions("conformal", "perturbation", "strength"),
        *headline(higher("coverage")),
        *logged(lower("set_size")),
        *higher("share_single"),
        *lower("share_empty"),
        *logged(higher("worst_class_coverage", "accuracy")),
        *neither("threshold", "calibration_images"),
    )

    conformal: list[str]
    coverage: float
    calibration_images: int
    examples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "coverage", above=0, below=1)
        require(self, "calibration_images", "examples", at_least=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        conformal: Mapping[str, Conformal],
        attack: Attack,
        corruption: Mapping[str, Corruption],
        defence: Defence,
    ) -> None:
        """Write one row for each method and perturbation, then the plots."""
        methods = chosen(self.conformal, conformal, "task.conformal")
        data = context.load(dataset)
        perturbations = self.perturbations(context, data, model, attack, corruption, defence)
        rest, held_out = data.hold_out(self.calibration_images, context.seed_for("conformal", 1))
        given = context.unseen(data, rest, model)
        network = context.train_or_load(context.spec(given, model, trainer, defence=defence)).network
        seen = predict(network, held_out.train, context.hardware)
        random = uniform(seen, context.seed_for("conformal", 2))
        probability = probabilities(seen)
        thresholds = {
            name: method.threshold(probability, seen.labels, random, self.coverage) for name, method in methods.items()
        }
        for each in self.answers(context, network, data, perturbations):
            sets = {}
            for name, method in methods.items():
                draws = uniform(each.answers, context.seed_for("conformal", 3))
                sets[name] = method.sets(probabilities(each.answers), draws, thresholds[name])
                fixed = {"threshold": thresholds[name], "calibration_images": len(seen.labels)}
                condition = {"conformal": name, **each.condition}
                context.record.metrics(condition, **row(sets[name], each.answers), **fixed)
                if each.perturbation == CLEAN:
                    check_coverage(context, name, sets[name], each.answers, self.coverage, len(seen.labels))
            if each.perturbation == CLEAN:
                self.plot_clean(context, data, sets, each.answers)
        if perturbations:
            figure = coverage_under_perturbation(context.record.rows, self.coverage, context.record.subject)
            context.record.plot("perturbed", figure)

    def plot_clean(self, context: Context, data: Dataset, sets: Mapping[str, Tensor], answers: Answers) -> None:
        """Plot the sizes of the sets with the accuracy for each size, and the images with the largest sets."""
        correct = {name: each.gather(1, answers.labels[:, None])[:, 0] for name, each in sets.items()}
        sizes = {name: each.sum(1) for name, each in sets.items()}
        context.record.plot("sizes", sizes_of_sets(sizes, correct, self.coverage, context.record.subject))
        if len(data.shape) != 3:
            return
        name = list(sets)[-1]
        largest = sizes[name].argsort(descending=True, stable=True)[: self.examples]
        raw, labels = next(data.test.stream(largest, len(largest)))
        names = [[data.classes[number] for number in sets[name][index].nonzero()[:, 0]] for index in largest]
        right = [data.classes[int(label)] for label in labels]
        context.record.plot(
            "examples", sets_of_images(as_pixels(raw), names, right, f"{name.upper()}: {context.record.subject}")
        )


def probabilities(answers: Answers) -> Tensor:
    """Softmax probabilities, float64 [N, K]."""
    return answers.logits.double().softmax(1)


def uniform(answers: Answers, seed: int) -> Tensor:
    """A random number in [0, 1) for each image, float64 [N]."""
    return torch.rand(len(answers.labels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row(sets: Tensor, answers: Answers) -> dict[str, object]:
    """The values of one row, with their intervals; the worst class is the one with the lowest coverage."""
    sizes, count = sets.sum(1), len(answers.labels)
    covered = sets.gather(1, answers.labels[:, None])[:, 0]
    present = sorted({*answers.labels.tolist()})
    of_class = {number: answers.labels == number for number in present}
    worst = min(present, key=lambda number: float(covered[of_class[number]].double().mean()))
    own = covered[of_class[worst]]
    return {
        **proportion("coverage", int(covered.sum()), count),
        **average("set_size", sizes.double()),
        **proportion("share_single", int((sizes == 1).sum()), count),
        **proportion("share_empty", int((sizes == 0).sum()), count),
        **proportion("worst_class_coverage", int(own.sum()), len(own)),
        **proportion("accuracy", int(answers.correct.sum()), count),
    }


def check_coverage(
    context: Context, name: str, sets: Tensor, answers: Answers, coverage: float, calibration: int
) -> None:
    """Check that the coverage on clean images is one that this many calibration and test images may show."""
    found = float(sets.gather(1, answers.labels[:, None]).double().mean())
    low, high = expected_coverage(coverage, calibration, len(answers.labels))
    expected = f"{in_percent(low).removesuffix(' %')} to {in_percent(high)} in 95 % of cases"
    figure = f"{in_percent(found)}; {expected}, n = {calibration:,} and {len(answers.labels):,}"
    context.record.check(f"{name} covers as many clean images as it says", found >= low, figure)
