"""task=explain: attribution maps of a classifier's predictions, and measures of their faithfulness."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar

import torch
from torch import Tensor

from trustml_cli.config.instantiate import chosen
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, random_indices, random_subset
from trustml_cli.data.table import Rows, Table
from trustml_cli.data.table_columns import as_text
from trustml_cli.defences.defence import Defence
from trustml_cli.explainers.explainer import Explainer, Unsuitable
from trustml_cli.explainers.measure import (
    BATCH,
    Explained,
    TableColumns,
    area_under,
    examine,
    in_random_order,
    rank_correlations,
)
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, by_image
from trustml_cli.models.inference import NO_GRADIENT, gives_gradients
from trustml_cli.models.model import Model, require_images
from trustml_cli.plots.explained_columns import column_bars, row_bars
from trustml_cli.plots.explanation import correlation_matrix, maps_of_images, replacement_curves
from trustml_cli.plots.style import label_answer
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

KEY = "task.explainer"
COMPLETE = 1e-5  # in logits; larger gaps are not rounding errors


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Explain predictions for `images` random test images, or rows of a table, with each `explainer`.

    `explainer` None takes all that support the model and the data. What follows of pixels holds for columns of a table,
    with the mean of the training rows for black, random training rows for baselines, and contributions alone.

    `target` is the class whose logit is explained, None for the predicted class. Completeness is measured against
    `baselines` images of random pixels for each image. Pixels are deleted (set to black) and inserted (into a black
    image) in descending order of the map, in `steps` steps. `deletion_gain` is how much lower the area under the
    deletion curve is than in a random order of pixels. Each figure shows `examples` images.
    """

    columns: ClassVar[Columns] = (
        *conditions("explainer"),
        # gradient × input maps have no gap of their own
        *sometimes((*logged(lower("completeness_gap")), *lower("max_completeness_gap"))),
        *headline(lower("deletion_auc")),
        *logged(higher("insertion_auc")),
        *higher("deletion_gain"),
        *lower("seconds"),
        *neither("baselines"),
        *sometimes(neither("rank_correlation_{explainer}")),
    )

    explainer: list[str] | None
    images: int
    target: int | str | None
    baselines: int
    steps: int
    examples: int

    def __post_init__(self) -> None:
        require(self, "images", "baselines", "steps", "examples", at_least=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        explainer: dict[str, Explainer],
        defence: Defence,
    ) -> None:
        """Write one row for each explainer, then the plots."""
        data = context.load(dataset)
        explainers = self.able(explainer, model, data, context, defence)
        columns = columns_of(data) if isinstance(data, Table) else None
        order, target = self.draw(data, context)
        x = torch.cat([x for x, _ in batches(data.test, BATCH, context.hardware.device, order)])
        network = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
        with torch.no_grad():
            probabilities = torch.cat([network(part).softmax(1) for part in torch.split(x, BATCH)])
        target = probabilities.argmax(1) if target is None else target

        random = self.random_baselines(data, len(order), context)
        explained: dict[str, Explained] = {}
        bar = Progress(explainers.items(), desc="explaining", unit="method")
        for name, method in bar:
            bar.tell(method=name)
            with seeded(context.seed):
                if method.learns_from:
                    method = method.fit(training_examples(data, method.learns_from, context))
                explained |= examine(name, method, network, x, target, random, self.steps, columns)
        chance = in_random_order(network, x, target, self.steps, context.seed, columns)
        correlations = rank_correlations({name: result.maps for name, result in explained.items()})
        for name, result in explained.items():
            row = judged(result, chance) | {"baselines": self.baselines}
            for other, values in correlations[name].items():
                row |= average(f"rank_correlation_{other}", values)
            context.record.metrics({"explainer": name}, **row)
        gaps = explained["linear"].gaps if "linear" in explained else None
        verdict = None if gaps is None else gaps.max().item() <= COMPLETE
        measured = "not applicable: the model is not linear"
        if gaps is not None:
            baselines = f"{self.baselines:,} random baselines for each example"
            measured = f"largest gap {gaps.max().item():.1e} in logits, over {baselines}"
        context.record.check("weights of a linear model are complete", verdict, measured)

        kept = {name: explained[name].maps for name in explainers}
        context.record.artifact("attributions", {"images": x, "targets": target, **kept})
        subject = context.record.subject
        sure = probabilities.gather(1, target[:, None])[:, 0]
        truth = data.test.labels[order].tolist()
        captions = [
            label_answer(data.classes[number], share) + (f"\nis {data.classes[own]}" if own != number else "")
            for number, share, own in zip(target.tolist(), sure.tolist(), truth, strict=True)
        ]
        maps = {name: result.maps for name, result in explained.items()}
        if columns is None:
            title = f"{subject}: pixels behind the logit of {'the answer' if self.target is None else self.target}"
            context.record.plot("side_by_side", maps_of_images(x[: self.examples], captions, maps, title))
        else:
            context.record.plot("columns", column_bars(maps, columns.names, subject))
            best = max(explained, key=lambda name: area_under(explained[name].insertion).mean().item())
            assert isinstance(data, Table)
            raw = values_of(data.test, order[: self.examples], columns.names)
            figure = row_bars(maps[best], columns.names, raw, captions, f"{best}: {subject}")
            context.record.plot("rows", figure)
        curves = {**explained, "random order": chance}
        context.record.plot(
            "deletion_insertion", replacement_curves(curves, subject, "pixels" if columns is None else "columns")
        )
        if len(explained) > 1:
            context.record.plot("rank_correlation", correlation_matrix(correlations, subject, len(x)))

    def able(
        self, family: dict[str, Explainer], model: Model, data: Dataset, context: Context, defence: Defence
    ) -> dict[str, Explainer]:
        """The explainers to run, checked before anything is trained.

        One that does not support the model is left out, or raises `InputError` if the user named it.
        """
        inputs = input_spec(data)
        if not (isinstance(data, Table) and data.feature_columns):
            with prefix_errors("dataset"):
                require_images(inputs)
        with prefix_errors("model"), seeded(context.seed):
            fresh = defence.around(model.build(inputs), data.shape).eval()
        differentiable = gives_gradients(fresh, torch.full((1, *data.shape), 0.5))
        able = {}
        for name, explainer in (family if self.explainer is None else chosen(self.explainer, family, KEY)).items():
            try:
                with prefix_errors(f"explainer.{name}"):
                    if explainer.gradients and not differentiable:
                        raise Unsuitable(NO_GRADIENT)
                    explainer.check(fresh, data.shape)
                able[name] = explainer
            except Unsuitable as error:
                if self.explainer is not None:
                    raise InputError(f"{KEY}: {name} {error}") from error
                log.info("%s is left out: it %s", name, error)
        if not able:
            raise InputError(f"{KEY}: none of {', '.join(family)} can serve model={context.record.choices['model']}")
        return able

    def random_baselines(self, data: Dataset, count: int, context: Context) -> Tensor:
        """`baselines` examples for each of the `count` explained, [N, B, …]: random pixels, or random training rows."""
        random = torch.Generator().manual_seed(context.seed)
        if len(data.shape) == 3:
            return torch.rand(count, self.baselines, *data.shape, generator=random)
        drawn = torch.randint(len(data.train), (count * self.baselines,), generator=random)
        rows = torch.cat([x for x, _ in batches(data.train, BATCH, context.hardware.device, drawn)])
        return rows.view(count, self.baselines, *data.shape)

    def draw(self, data: Dataset, context: Context) -> tuple[Tensor, Tensor | None]:
        """The indices of the test examples to explain, int64 [N], and their target classes on the device, or None."""
        order = random_indices(data.test, self.images, context.seed)
        target = None
        if self.target is not None:
            with prefix_errors("task.target"):
                number = data.class_number(self.target)
            target = torch.full((len(order),), number, device=context.hardware.device)
        return order, target


def training_examples(data: Dataset, count: int, context: Context) -> Tensor:
    """`count` random training examples, or all if there are fewer, on the run's device."""
    some = random_subset(data.train, count, context.seed)
    return torch.cat([x for x, _ in batches(some, BATCH, context.hardware.device)])


def columns_of(data: Table) -> TableColumns:
    """The columns of a table, in the order of their features."""
    names = tuple(dict.fromkeys(data.feature_columns))
    of_feature = torch.tensor([names.index(name) for name in data.feature_columns])
    return TableColumns(names, of_feature, data.train.inputs.mean(0))


def values_of(rows: Rows, indices: Tensor, names: Sequence[str]) -> list[list[str]]:
    """The values of the columns `names` in some rows, as text, before they were encoded."""
    assert rows.columns is not None
    some = rows.columns.iloc[indices.numpy()]
    by_column = [[as_text(value) for value in some[name]] for name in names]
    return [list(row) for row in zip(*by_column, strict=True)]


def judged(result: Explained, chance: Explained) -> dict[str, Any]:
    """The values of one row, with the curves by `chance`; maps times input have no completeness gap of their own."""
    own, random = (area_under(each.deletion) for each in (result, chance))
    gaps = torch.empty(0, 1) if result.gaps is None else result.gaps
    return {
        **average("completeness_gap", gaps.mean(1)),
        "max_completeness_gap": gaps.max().item() if len(gaps) else nan,
        **by_image("deletion_auc", own),
        **by_image("insertion_auc", area_under(result.insertion)),
        **by_image("deletion_gain", random - own),
        "seconds": result.seconds,
    }
