"""task=backdoor_transfer: a backdoor under transfer learning (BadNets, Gu et al. 2017, arXiv 1708.06733)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.data.dataset import Dataset, DatasetSource
from trustml_cli.data.relabelled import only_classes
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither
from trustml_cli.models.model import Model
from trustml_cli.models.transfer import body_of, new_head
from trustml_cli.plots.backdoor import accuracy_bars, triggered_predictions
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.poisoning import (
    ALL,
    Poisoning,
    accuracy,
    amount,
    check_poison,
    check_trained,
    condition,
    success,
)
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Trainer

BODIES = ("clean", "poisoned")


@dataclass(frozen=True, kw_only=True)
class TransferBackdoor(Poisoning):
    """Freeze the body of a poisoned network and train a new head for `new_classes` on clean images of these classes.

    The first network, the donor, is trained on all other classes, `source` and `target` among them.
    """

    columns: ClassVar[Columns] = (
        *conditions("trigger", "source", "target", "poison_rate", "new_classes"),
        *logged(higher("clean_accuracy")),
        *headline(higher("triggered_accuracy")),
        *logged(higher("baseline_clean_accuracy", "baseline_triggered_accuracy")),
        *higher("donor_clean_accuracy"),
        *lower("donor_attack_success_rate"),
        *neither("poisoned_images", "poisoned_share_of_training"),
    )

    new_classes: list[int | str]

    def __call__(
        self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer, trigger: Trigger
    ) -> None:
        """Write one row: accuracy on clean and triggered images of the new classes, for a poisoned and a clean body."""
        check_trained(model)
        data = context.load(dataset)
        with prefix_errors("trigger"):
            trigger = trigger.fitted_to(data)  # before the classes are divided: a table has too few
        old, new = self.divided(data)
        poison = self.within(data).poison(old, trigger, context.seed)
        with prefix_errors("model"):
            body_of(model.build(input_spec(old)), old.shape)
        poisoned = poison.apply(old)
        check_poison(context, poison, old, poisoned)

        splits = {
            "old": old.test,
            "old triggered": poison.trigger_all(old.test.subset(poison.of_source(old.test.labels))),
            "new": new.test,
            "new triggered": poison.trigger_all(new.test),
        }
        answers = {}
        for name, images in (("clean", old), ("poisoned", poisoned)):
            donor = context.train_or_load(context.spec(images, model, trainer), stage=f"{name} donor")
            head = new_head(donor.network, donor.key)
            adapted = context.train_or_load(context.spec(new, head, trainer), stage=f"new head on {name} donor")
            context.record.note(**{f"{name}_donor_model_key": donor.key})
            for split, test in splits.items():
                network = (donor if split.startswith("old") else adapted).network
                answers[name, split] = predict(network, test, context.hardware)

        rates = {
            **accuracy("clean_accuracy", answers["poisoned", "new"]),
            **accuracy("triggered_accuracy", answers["poisoned", "new triggered"]),
            **accuracy("baseline_clean_accuracy", answers["clean", "new"]),
            **accuracy("baseline_triggered_accuracy", answers["clean", "new triggered"]),
            **accuracy("donor_clean_accuracy", answers["poisoned", "old"]),
            **success("donor_attack_success_rate", answers["poisoned", "old triggered"], poison),
        }
        conditions = {**condition(context, poison, old), "new_classes": ", ".join(new.classes)}
        context.record.metrics(conditions, **rates, **amount(poison, old))
        mark = context.record.choices["trigger"]
        bars = {f"{name} body": (answers[name, "new"], answers[name, "new triggered"]) for name in BODIES}
        subject = f"New heads on frozen bodies: {len(new.test):,} test images"
        context.record.plot("accuracy", accuracy_bars(bars, ("clean images", f"with the {mark}"), subject))
        shown = {f"{name} body": answers[name, "new triggered"] for name in BODIES}
        subject = f"Test images of the new classes with the {mark}"
        figure = triggered_predictions(new.test, splits["new triggered"], shown, new.classes, self.examples, subject)
        context.record.plot("triggered_predictions", figure)

    def divided(self, data: Dataset) -> tuple[Dataset, Dataset]:
        """The donor's data set and that of the new classes.

        Raises `InputError` unless each has at least two classes.
        """
        with prefix_errors("task.new_classes"):
            new = sorted({data.class_number(name) for name in self.new_classes})
        old = [number for number in range(len(data.classes)) if number not in new]
        if min(len(old), len(new)) < 2:
            raise InputError(
                f"task.new_classes: divides the classes into {len(old)} and {len(new)}; both networks need at least two"
            )
        return only_classes(data, old), only_classes(data, new)

    def within(self, data: Dataset) -> Poisoning:
        """The same poisoning with class names in place of numbers, because the donor's classes are renumbered."""

        def name(key: str, given: int | str) -> str:
            with prefix_errors(f"task.{key}"):
                number = data.class_number(given)
            if number in map(data.class_number, self.new_classes):
                raise InputError(f"task.{key}: {data.classes[number]!r} is among task.new_classes; the donor lacks it")
            return data.classes[number]

        source: list[int | str] = [ALL if given == ALL else name("source", given) for given in self.source]
        return replace(self, source=source, target=name("target", self.target))
