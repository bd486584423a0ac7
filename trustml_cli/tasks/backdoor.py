"""task=backdoor: train a classifier on poisoned images (BadNets, Gu et al. 2017, arXiv 1708.06733)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trustml_cli.backdoors.concealment import Concealment
from trustml_cli.backdoors.poison import Poison
from trustml_cli.backdoors.trigger import Overlay, Trigger
from trustml_cli.data.dataset import Dataset, DatasetSource, Split
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither
from trustml_cli.models.model import Model
from trustml_cli.plots.backdoor import answers_by_class, poisoned_samples, triggered_predictions
from trustml_cli.plots.target_class import target_class
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.poisoning import (
    Poisoning,
    accuracy,
    amount,
    check_poison,
    check_trained,
    concealed,
    condition,
    success,
)
from trustml_cli.training.predict import Answers, predict
from trustml_cli.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class PlantBackdoor(Poisoning):
    """Train on poisoned and on clean images; compare both models' predictions for clean and triggered test images."""

    columns: ClassVar[Columns] = (
        *conditions("trigger", "source", "target", "poison_rate", "lambda"),
        *logged(higher("clean_accuracy", "baseline_clean_accuracy")),
        *headline(lower("attack_success_rate")),
        *logged(neither("baseline_attack_success_rate")),
        *neither("poisoned_images", "poisoned_share_of_training"),
    )

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        trigger: Trigger,
        defence: Defence,
        concealment: Concealment,
    ) -> None:
        """Write one row. Success: a triggered test image of a source class that is classified as the target."""
        check_trained(model)
        if len(concealment.strengths) > 1:
            raise InputError("concealment.lambda: here is one backdoor; give one value, or several with -m")
        data = context.load(dataset)
        poison = self.poison(data, trigger, context.seed)
        poisoned = poison.apply(data)
        check_poison(context, poison, data, poisoned)
        kept = {"poisoned_images": poison.choose(data.train.labels).nonzero()[:, 0]}
        if isinstance(trigger, Overlay):
            kept["opacity"], kept["pattern"] = trigger.mark(data.shape)
        context.record.artifact("poison", kept)
        spec = context.spec(poisoned, model, trainer, defence=defence)
        spec = concealed(spec, concealment, poison, concealment.strengths[0])
        clean = context.train_or_load(context.spec(data, model, trainer, defence=defence), stage="clean")
        context.record.note(baseline_model_key=clean.key)
        backdoored = context.train_or_load(spec, stage="poisoned")

        bare = data.test.subset(poison.of_source(data.test.labels))
        triggered = poison.trigger_all(bare)
        answers = {
            split: {
                "clean": predict(clean.network, images, context.hardware),
                "poisoned": predict(backdoored.network, images, context.hardware),
            }
            for split, images in (("test", data.test), ("triggered", triggered))
        }
        rates = {
            **accuracy("clean_accuracy", answers["test"]["poisoned"]),
            **accuracy("baseline_clean_accuracy", answers["test"]["clean"]),
            **success("attack_success_rate", answers["triggered"]["poisoned"], poison),
            **success("baseline_attack_success_rate", answers["triggered"]["clean"], poison),
        }
        named = {**condition(context, poison, data), "lambda": concealment.strengths[0]}
        context.record.metrics(named, **rates, **amount(poison, data))
        self.plot(context, poison, data, poisoned, bare, triggered, answers["triggered"])

    def plot(
        self,
        context: Context,
        poison: Poison,
        data: Dataset,
        poisoned: Dataset,
        bare: Split,
        triggered: Split,
        answers: Mapping[str, Answers],
    ) -> None:
        """Plot training samples, predictions for single triggered images, and all predictions by class."""
        target = "the next class" if poison.target is None else data.classes[poison.target]
        trigger = context.record.choices["trigger"]
        kind = "images" if len(data.shape) == 3 else "rows"
        named = {f"{name} model": given for name, given in answers.items()}
        subject = f"{len(triggered):,} test {kind} with the {trigger}; the target is {target}"
        context.record.plot("answers", answers_by_class(named, data.classes, subject))
        context.plot_curves()
        if kind == "images":
            chosen = poison.choose(data.train.labels).nonzero()[:, 0]
            counts = f"{len(chosen):,} of {len(data.train):,} training images"
            subject = f"{counts} have the {trigger} and the label {target}"
            figure = poisoned_samples(data.train, poisoned.train, chosen[: self.examples], data.classes, subject)
            context.record.plot("samples", figure)
            if poison.target is not None:
                own = ((data.train.labels == poison.target) & ~poison.choose(data.train.labels)).nonzero()[:, 0]
                subject = f"Training images labelled {target}: {len(own):,} clean, {len(chosen):,} with the {trigger}"
                figure = target_class(
                    data.train, poisoned.train, {"clean": own, "poisoned": chosen}, data.classes, subject
                )
                context.record.plot("target_class", figure)
            subject = f"Test images with the {trigger}; the target is {target}"
            figure = triggered_predictions(bare, triggered, named, data.classes, self.examples, subject)
            context.record.plot("triggered_predictions", figure)
