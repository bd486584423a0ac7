"""task=forget: clean a backdoored network with a few clean images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from trustml_cli.backdoors.poison import Poison
from trustml_cli.backdoors.trigger import Trigger
from trustml_cli.config.instantiate import chosen
from trustml_cli.data.dataset import Dataset, DatasetSource, Split
from trustml_cli.data.unseen import split_validation
from trustml_cli.forgetting.cleaner import Backdoored, Cleaner, chosen_setting
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.model import Model
from trustml_cli.plots.backdoor import triggered_predictions
from trustml_cli.plots.forgetting import success_over_accuracy
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.clean_set import CleanSet, check_held_out, clean_sets
from trustml_cli.tasks.context import Context, Trained
from trustml_cli.tasks.poisoning import Poisoning, accuracy, check_poison, condition, success
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import Answers, predict
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.trainer import Trainer

BEFORE, NEVER = "none", "never_poisoned"
OPENS = 0.5  # attack success rate from which there is a backdoor to forget


@dataclass(frozen=True)
class Cleaned:
    """A cleaned network, with its setting, its accuracy on held-out images, and the seconds of all trainings for it."""

    network: nn.Module
    setting: float
    held_out: Answers
    seconds: float


@dataclass(frozen=True)
class Judged:
    """A network's answers for the test images, and for the triggered ones of the source classes."""

    clean: Answers
    triggered: Answers


@dataclass(frozen=True, kw_only=True)
class Forget(Poisoning):
    """Clean a backdoored network by each `cleaner`, with each share `tainted` of the clean set poisoned after all.

    The clean set is the share `clean_share` of the training images; the backdoored network is not trained on it. The
    share `held_out` of it chooses the cleaners' settings: the most thorough that costs at most `tolerance` of accuracy.
    A checkpoint is backdoored already; `source`, `target` and the trigger then say how.
    """

    columns: ClassVar[Columns] = (
        *conditions("trigger", "source", "target"),
        *sometimes(conditions("poison_rate")),  # a checkpoint's is unknown
        *conditions("cleaner", "tainted"),
        *logged(higher("clean_accuracy")),
        *headline(lower("attack_success_rate")),
        *logged(higher("recovered_accuracy")),
        *lower("seconds"),
        *sometimes((*neither("setting"), *higher("held_out_accuracy"), *neither("clean_images", "tainted_images"))),
    )

    cleaner: list[str]
    clean_share: float
    tainted: list[float]
    held_out: float
    tolerance: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "clean_share", "held_out", above=0, below=1)
        require(self, "tolerance", at_least=0, below=1)
        if not self.tainted or not all(0 <= share < 1 for share in self.tainted):
            raise ValueError(f"tainted: must be at least 0 and below 1, at least one number; got {self.tainted}")

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        trigger: Trigger,
        cleaner: Mapping[str, Cleaner],
    ) -> None:
        """Write a row for the backdoored and the never poisoned network, and for each cleaner and tainted share."""
        cleaners = chosen(self.cleaner, cleaner, "task.cleaner")
        if not isinstance(trainer, GradientTrainer):
            raise InputError("trainer: networks are cleaned by training with gradients; use trainer=default")
        whole = context.load(dataset)
        check_cleaners(cleaners, whole, model, context.seed)
        data, own = split_validation(whole, self.clean_share, context.seed)
        poison = self.poison(data, trigger, context.seed)
        sets = clean_sets(whole, own, poison, self.tainted, self.held_out, context.seed)
        poisoned = poison.apply(data) if model.trains else data
        if model.trains:
            check_poison(context, poison, data, poisoned)
        check_held_out(context, next(iter(sets.values())), poison)

        spec = TrainingSpec(data=poisoned, model=model, trainer=trainer, seed=context.seed)
        found = context.train_or_load(spec, stage="backdoored")
        context.record.note(backdoored_model_key=found.key)
        judge = Judge(context, poison, data, planted=model.trains)
        before = judge.write(BEFORE, 0.0, found.network, seconds=seconds(found))
        opened = (before.triggered.predicted == poison.aims(before.triggered.labels)).double().mean().item()
        context.record.check(
            "there is a backdoor to forget", opened >= OPENS, f"success {in_percent(opened)} before cleaning"
        )
        judged = {(BEFORE, 0.0): before}
        if model.trains:
            never = context.train_or_load(replace(spec, data=data), NEVER)
            judged[NEVER, 0.0] = judge.write(NEVER, 0.0, never.network, seconds=seconds(never))

        backdoored = Backdoored(spec, found.network, trainer)
        jobs = [(name, share) for share in sets for name in cleaners]
        for name, share in Progress(jobs, desc="cleaning", unit="network"):
            result = self.clean(context, cleaners[name], backdoored, sets[share], f"{name}, {share:g} tainted")
            judged[name, share] = judge.write(
                name,
                share,
                result.network,
                seconds=result.seconds,
                setting=result.setting,
                **accuracy("held_out_accuracy", result.held_out),
                clean_images=sets[share].images,
                tainted_images=sets[share].tainted,
            )
            context.record.artifact(f"{name}_{share:g}", result.network.state_dict())
        self.plot(context, poison, data, judge.triggered, judged)

    def clean(self, context: Context, cleaner: Cleaner, backdoored: Backdoored, clean: CleanSet, stage: str) -> Cleaned:
        """The network cleaned with the setting that the held-out images choose."""
        held_out = clean.data.test
        before = predict(backdoored.network, held_out, context.hardware).accuracy
        trained, answers, spent = {}, {}, 0.0
        for setting in cleaner.settings:
            spec = cleaner.spec(backdoored, clean.data, setting)
            trained[setting] = context.train_or_load(spec, stage=f"{stage}: {setting:g}")
            answers[setting] = predict(trained[setting].network, held_out, context.hardware)
            spent += seconds(trained[setting])
        reached = {setting: given.accuracy for setting, given in answers.items()}
        setting = chosen_setting(reached, before, self.tolerance)
        return Cleaned(trained[setting].network, setting, answers[setting], spent)

    def plot(
        self,
        context: Context,
        poison: Poison,
        data: Dataset,
        triggered: Split,
        judged: Mapping[tuple[str, float], Judged],
    ) -> None:
        """Plot success over clean accuracy, and what the networks say of single triggered images."""
        clean = {key: one.clean.correct for key, one in judged.items()}
        success = {key: one.triggered.predicted == poison.aims(one.triggered.labels) for key, one in judged.items()}
        context.record.plot("forgetting", success_over_accuracy(clean, success, context.record.subject))
        if len(data.shape) == 3:
            bare = data.test.subset(poison.of_source(data.test.labels))
            least = min(share for name, share in judged if name not in (BEFORE, NEVER))
            shown = {
                {BEFORE: "backdoored"}.get(name, name).replace("_", " "): one.triggered
                for (name, share), one in judged.items()
                if name in (BEFORE, NEVER) or share == least
            }
            trigger = context.record.choices["trigger"]
            subject = f"Test images with the {trigger}; {100 * least:g} % of the clean set was tainted"
            figure = triggered_predictions(bare, triggered, shown, data.classes, self.examples, subject)
            context.record.plot("triggered_predictions", figure)


class Judge:
    """Asks networks about the test images of `data`, and about the triggered ones, and writes rows."""

    def __init__(self, context: Context, poison: Poison, data: Dataset, planted: bool) -> None:
        self.context, self.poison, self.data = context, poison, data
        self.named = condition(context, poison, data)
        if not planted:
            del self.named["poison_rate"]
        self.triggered = poison.trigger_all(data.test.subset(poison.of_source(data.test.labels)))

    def write(self, name: str, tainted: float, network: nn.Module, **values: object) -> Judged:
        """Write the row of a network; recovered accuracy is that of triggered images."""
        context = self.context
        clean = predict(network, self.data.test, context.hardware)
        triggered = predict(network, self.triggered, context.hardware)
        context.record.metrics(
            {**self.named, "cleaner": name, "tainted": tainted},
            **accuracy("clean_accuracy", clean),
            **success("attack_success_rate", triggered, self.poison),
            **accuracy("recovered_accuracy", triggered),
            **values,
        )
        return Judged(clean, triggered)


def seconds(trained: Trained) -> float:
    """The time of the training steps of a network."""
    return sum(epoch.seconds for epoch in trained.history)


def check_cleaners(cleaners: Mapping[str, Cleaner], data: Dataset, model: Model, seed: int) -> None:
    """Raise `InputError` where a cleaner does not fit the network."""
    with prefix_errors("model"), seeded(seed):
        fresh = model.build(input_spec(data))
    for name, cleaner in cleaners.items():
        with prefix_errors(f"cleaner.{name}"):
            cleaner.check(fresh, data.shape)
