"""task=steal: model extraction from a classifier by queries alone."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.config.instantiate import chosen
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, Split
from trustml_cli.data.unseen import split_validation
from trustml_cli.defences.defence import Defence
from trustml_cli.extraction.thief import Means, Thief
from trustml_cli.extraction.victim import Answer, Victim
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, neither, sometimes
from trustml_cli.metrics.intervals import by_image, proportion
from trustml_cli.models.linear import linear_parameters
from trustml_cli.models.model import Model, require_images
from trustml_cli.plots.extraction import agreement_curve, weights_side_by_side
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.attacker_images import AttackerImages, remark_on_checkpoints
from trustml_cli.tasks.context import Context
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH, Answers, predict
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Steal:
    """Extract the victim by each `method` with each number of `queries`.

    The victim returns at most what `returns` names, rounded to `round_digits` decimal places. The share `held_out` of
    the training images, without labels, belongs to the thief. The victim is not trained on them, except where
    `attacker_images` is `train`. Agreement is measured on the test images, which neither network was trained on. Where
    no `student` is given, a thief that trains one trains a network of the victim's kind.
    """

    columns: ClassVar[Columns] = (
        *conditions("method", "queries", "attacker_images"),
        *logged(higher("victim_accuracy")),
        *logged(neither("stolen_accuracy")),  # higher is better for the thief only
        *headline(neither("agreement")),
        *sometimes(logged(neither("max_parameter_error"))),
        *sometimes(neither("raw_parameter_error", "max_probability_error")),
        *neither("queries_used", "answer"),
        *sometimes(neither("round_digits")),
        *neither("seconds"),
    )

    method: list[str] | None
    queries: list[int]
    returns: Answer
    round_digits: int | None
    held_out: float
    attacker_images: AttackerImages

    def __post_init__(self) -> None:
        if not self.queries:
            raise ValueError("queries: needs at least one number")
        for number in self.queries:
            if number < 1:
                raise ValueError(f"queries: must be at least 1, got {number}")
        require(self, "round_digits", at_least=0)
        require(self, "held_out", above=0, below=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        thief: dict[str, Thief],
        defence: Defence,
        student: Model | None = None,
    ) -> None:
        """Write one row for each method and number of queries, then the plots."""
        thieves = thief if self.method is None else chosen(self.method, thief, "task.method")
        whole = context.load(dataset)
        less, own = split_validation(whole, self.held_out, context.seed)  # the victim's data set; the thief's images
        data = less if self.attacker_images is AttackerImages.held_out else whole
        remark_on_checkpoints(context, [model], self.attacker_images)
        if not (len(data.train) and len(own)):
            raise InputError("task.held_out: leaves nothing for the victim or for the thief; choose another share")
        if student is None:
            if not model.trains and model.checkpoint is None:
                raise InputError(
                    "model@student: must be named, as the victim's own kind has published weights; use mlp"
                )
            student = model.fresh()
        thieves = self.able(thieves, data, own, context, model, student, defence)
        network = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
        asked = predict(network, data.test, context.hardware)
        parameters = parameters_of(network, data)

        rows: list[dict[str, Any]] = []
        stolen_weights: dict[str, Tensor] = {}
        jobs = [(name, queries) for name in thieves for queries in sorted(set(self.queries))]
        for name, queries in Progress(jobs, desc="stealing", unit="theft"):
            victim = Victim(network, data.shape, len(data.classes), device=context.hardware.device,
                            returns=self.returns, round_digits=self.round_digits, limit=queries)  # fmt: skip
            start = perf_counter()
            stolen = steal(context, thieves[name], victim, queries, means_of(own, data, student, context))
            seconds = perf_counter() - start
            told = predict(stolen, data.test, context.hardware)
            found = parameters_of(stolen, data)
            condition = {"method": name, "queries": queries, "attacker_images": self.attacker_images.value}
            values = {
                **compare(asked, told),
                "max_parameter_error": parameter_error(thieves[name].comparable, parameters, found),
                "raw_parameter_error": parameter_error(lambda each: each, parameters, found),
                "max_probability_error": probability_error(thieves[name], asked, told),
                "queries_used": victim.queries,
                "answer": thieves[name].needs.value,
                "round_digits": self.round_digits,
                "seconds": seconds,
            }
            context.record.metrics(condition, **values)
            context.record.artifact(f"{name}_{queries}", stolen.state_dict())
            rows.append(condition | values)
            if found is not None:
                stolen_weights[name] = found  # ends as that of the most queries, which come last
        if all(row["max_parameter_error"] is not None for row in rows):
            context.record.note(headline="max_parameter_error")
        over = [row for row in rows if row["queries_used"] > row["queries"]]
        context.record.check("no thief asked more often than allowed", not over, f"{len(over)} of {len(rows)} did")
        self.plot(context, data, rows, parameters, stolen_weights)

    def plot(
        self,
        context: Context,
        data: Dataset,
        rows: list[dict[str, Any]],
        parameters: Tensor | None,
        stolen_weights: dict[str, Tensor],
    ) -> None:
        """Plot agreement against queries, and the weights of linear classifiers beside the victim's."""
        subject = context.record.subject
        context.record.plot("agreement", agreement_curve(rows, subject))
        if parameters is not None and stolen_weights:
            shown = {"victim": parameters, **stolen_weights}
            subject = f"{subject}, and what {max(self.queries):,} queries found"
            figure = weights_side_by_side(shown, data.shape, data.classes, subject)
            context.record.plot("weights", figure)
        context.plot_curves()

    def able(
        self,
        thieves: dict[str, Thief],
        data: Dataset,
        own: Split,
        context: Context,
        model: Model,
        student: Model,
        defence: Defence,
    ) -> dict[str, Thief]:
        """The methods that fit victim, student and data.

        Before anything is trained, one that does not is left out, or raises `InputError` if the user named it.
        """
        inputs = input_spec(data)
        with prefix_errors("dataset"):
            require_images(inputs)
        if student.checkpoint is not None:
            raise InputError("student.checkpoint: must be null, a thief trains its student from scratch")
        with prefix_errors("student"):
            student.build(inputs)
        with prefix_errors("model"), seeded(context.seed):
            fresh = defence.around(model.build(inputs), data.shape)
        choices, able = context.record.choices, {}
        defended = "" if type(defence) is Defence else f" with defence={choices['defence']}"
        is_linear = parameters_of(fresh, data) is not None
        for name, thief in thieves.items():
            obstacle = None
            if thief.needs.rank < self.returns.rank:
                obstacle = (
                    f"{name} needs {thief.needs.value}, but task.returns={self.returns.value}; "
                    "take another method or let the victim return more"
                )
            elif thief.linear and not is_linear:
                obstacle = (
                    f"{name} steals linear classifiers only, and model={choices['model']}{defended} is not one; "
                    "take task.method=distill"
                )
            if obstacle is None:
                with prefix_errors("task.queries"):
                    thief.check(max(self.queries), len(own))
                able[name] = thief
            elif self.method is None:
                log.info("%s is left out: %s", name, obstacle.partition(" ")[2].partition(";")[0])
            else:
                raise InputError(f"task.method: {obstacle}")
        if not able:
            raise InputError(f"task.method: none of {', '.join(thieves)} fits this victim")
        return able


def steal(context: Context, thief: Thief, victim: Victim, queries: int, means: Means) -> nn.Module:
    """The network that a thief extracts from the victim.

    The student's initial weights are drawn with another seed than the victim's, so that they differ.
    """
    with seeded(context.seed_for("student", 1)):
        return thief(victim, queries, means).to(context.hardware.device)


def means_of(own: Split, data: Dataset, student: Model, context: Context) -> Means:
    """The thief's resources: the images of `own`, and untrained students for inputs of their shape."""
    images = torch.cat([x.contiguous() for x, _ in batches(own, BATCH, torch.device("cpu"))])
    inputs = input_spec(data.derive("the thief's", train=own))
    random = torch.Generator().manual_seed(context.seed)
    return Means(images, lambda: student.build(inputs), context.hardware.device, random)


def compare(asked: Answers, told: Answers) -> dict[str, object]:
    """Accuracy of victim and stolen network, and the share of images for which they predict the same class."""
    n = len(asked.labels)
    return {
        **proportion("victim_accuracy", int(asked.correct.sum()), n),
        **proportion("stolen_accuracy", int(told.correct.sum()), n),
        **by_image("agreement", asked.predicted == told.predicted),
    }


def parameters_of(network: nn.Module, data: Dataset) -> Tensor | None:
    """Weights and bias in pixel space; None for a network that is not linear."""
    try:
        return linear_parameters(network, data.shape)
    except ValueError:
        return None


def parameter_error(
    comparable: Callable[[Tensor], Tensor | None], victim: Tensor | None, stolen: Tensor | None
) -> float | None:
    """The largest difference of weights or biases in pixel space; None unless both are linear and `comparable`."""
    if victim is None or stolen is None:
        return None
    theirs, ours = comparable(victim), comparable(stolen)
    return None if theirs is None or ours is None else (theirs - ours).abs().max().item()


def probability_error(thief: Thief, asked: Answers, told: Answers) -> float | None:
    """The largest difference in a class probability over the test images; None for thieves that need only labels."""
    if thief.needs is Answer.labels:
        return None
    return (asked.logits.softmax(1) - told.logits.softmax(1)).abs().max().item()
