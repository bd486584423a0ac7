"""task=explain: attribution maps of a classifier's predictions, and measures of their faithfulness."""

import logging
from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

from trustml_cli.config.instantiate import chosen
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, random_subset
from trustml_cli.defences.defence import Defence
from trustml_cli.explainers.explainer import Explainer, Unsuitable
from trustml_cli.explainers.measure import BATCH, Explained, area_under, examine, rank_correlations
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average
from trustml_cli.models.inference import NO_GRADIENT, gives_gradients
from trustml_cli.models.model import Model, require_images
from trustml_cli.plots.explanation import correlation_matrix, methods_side_by_side, one_method, replacement_curves
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context, input_spec
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

KEY = "task.explainer"
COMPLETE = 1e-5  # in logits; larger gaps are not rounding errors


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Explain predictions for `images` random test images with each `explainer` (None: all that support the model).

    `target` is the class whose logit is explained, None for the predicted class. Completeness is measured against
    `baselines` images of random pixels for each image. Pixels are deleted (set to black) and inserted (into a black
    image) in descending order of the map, in `steps` steps. Each figure shows `examples` images.
    """

    columns: ClassVar[Columns] = (
        *conditions("explainer"),
        # gradient × input maps have no gap of their own
        *sometimes((*logged(lower("completeness_gap")), *lower("max_completeness_gap"))),
        *headline(lower("deletion_auc")),
        *logged(higher("insertion_auc")),
        *lower("seconds"),
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
        x, target = self.draw(data, context)
        network = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
        with torch.no_grad():
            probabilities = torch.cat([network(part).softmax(1) for part in torch.split(x, BATCH)])
        target = probabilities.argmax(1) if target is None else target

        random = torch.rand(len(x), self.baselines, *data.shape, generator=torch.Generator().manual_seed(context.seed))
        explained: dict[str, Explained] = {}
        for name, method in tqdm(explainers.items(), desc="explaining", unit="method", disable=None):
            with seeded(context.seed):
                if method.learns_from:
                    method = method.fit(self.training_images(data, method.learns_from, context))
                explained |= examine(name, method, network, x, target, random, self.steps)
        correlations = rank_correlations({name: result.maps for name, result in explained.items()})
        for name, result in explained.items():
            row = judged(result)
            for other, values in correlations[name].items():
                row |= average(f"rank_correlation_{other}", values)
            context.record.metrics({"explainer": name}, **row)
        gaps = explained["linear"].gaps if "linear" in explained else None
        verdict = None if gaps is None else gaps.max().item() <= COMPLETE
        largest = None if gaps is None else gaps.max().item()
        context.record.check("weights of a linear model are complete", verdict, f"largest gap {largest}")

        kept = {name: explained[name].maps for name in explainers}
        context.record.artifact("attributions", {"images": x, "targets": target, **kept})
        subject = context.record.subject
        sure = probabilities.gather(1, target[:, None])[:, 0]
        captions = [f"{data.classes[number]} ({share:.0%})" for number, share in zip(target, sure, strict=True)]
        for name in explainers:
            kinds = {kind: explained[kind].maps for kind in (name, f"{name}_x_input") if kind in explained}
            context.record.plot(name, one_method(x[: self.examples], captions, kinds, f"{name}: {subject}"))
        maps = {name: result.maps for name, result in explained.items()}
        context.record.plot("side_by_side", methods_side_by_side(x[: self.examples], captions, maps, subject))
        context.record.plot("deletion_insertion", replacement_curves(explained, subject))
        if len(explained) > 1:
            context.record.plot("rank_correlation", correlation_matrix(correlations, subject, len(x)))

    def able(
        self, family: dict[str, Explainer], model: Model, data: Dataset, context: Context, defence: Defence
    ) -> dict[str, Explainer]:
        """The explainers to run, checked before anything is trained.

        One that does not support the model is left out, or raises `InputError` if the user named it.
        """
        inputs = input_spec(data)
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

    def training_images(self, data: Dataset, count: int, context: Context) -> Tensor:
        """`count` random training images, or all if there are fewer, on the run's device."""
        some = random_subset(data.train, count, context.seed)
        parts = [x for x, _ in batches(some, BATCH, context.hardware.device)]
        return torch.cat(parts)

    def draw(self, data: Dataset, context: Context) -> tuple[Tensor, Tensor | None]:
        """The images to explain and the target class of each, [N], or None; both on the run's device."""
        if self.images > len(data.test):
            raise InputError(f"task.images: must be at most {len(data.test)}, the number of test images")
        target = None
        if self.target is not None:
            with prefix_errors("task.target"):
                number = data.class_number(self.target)
            target = torch.full((self.images,), number, device=context.hardware.device)
        order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(context.seed))[: self.images]
        parts = [x for x, _ in batches(data.test, BATCH, context.hardware.device, order.sort().values)]
        return torch.cat(parts), target


def judged(result: Explained) -> dict[str, Any]:
    """The values of one row; maps multiplied by the input have no completeness gap of their own."""
    gaps = torch.empty(0, 1) if result.gaps is None else result.gaps
    return {
        **average("completeness_gap", gaps.mean(1)),
        "max_completeness_gap": gaps.max().item() if len(gaps) else nan,
        **average("deletion_auc", area_under(result.deletion)),
        **average("insertion_auc", area_under(result.insertion)),
        "seconds": result.seconds,
    }
