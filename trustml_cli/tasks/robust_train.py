"""task=robust_train: clean and robust accuracy of a network trained with a defence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trustml_cli.attacks.attack import Attack
from trustml_cli.data.dataset import DatasetSource
from trustml_cli.defences.defence import Defence, RobustTraining
from trustml_cli.metrics.columns import Columns, conditions
from trustml_cli.models.model import Model
from trustml_cli.plots.robustness import defended_curves
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.attacker_images import attacker_condition, split_for_attacker
from trustml_cli.tasks.context import Context, check_defence
from trustml_cli.tasks.robustness import RobustnessTask
from trustml_cli.tasks.verdict import judge_robustness
from trustml_cli.training.trainer import Trainer

NONE = {"defence": "none"}


@dataclass(frozen=True, kw_only=True)
class RobustTrain(RobustnessTask):
    """Train with a defence and attack the network; with `baseline`, also the same network trained without one."""

    columns: ClassVar[Columns] = (
        *conditions("defence"),
        *(column for column in RobustnessTask.columns if column.name != "defence"),
    )

    baseline: bool

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        attack: Attack,
        references: Mapping[str, Attack],
        defence: Defence,
    ) -> None:
        """Write one row for each epsilon and network, checks and verdict of the defended one, then the plots."""
        if not isinstance(defence, RobustTraining):
            raise InputError("defence: this task trains with one; choose another than none, or task=attack for rectify")
        data = context.load(dataset)
        check_defence(defence, data, model, trainer)
        attack, test = self.prepare(context, data, model, attack, defence)
        learnt = attacker_condition(attack.learns_from, self.attacker_images)
        data, known = split_for_attacker(data, attack.learns_from, self.attacker_images, context.seed)
        choices = context.record.choices
        name = choices["defence"]
        curves, by_class = {}, []
        if self.baseline:
            network = context.train_or_load(context.spec(data, model, trainer), stage="none").network
            baseline = self.evaluate(context, network, attack, known, test)
            baseline.write_rows(NONE, learnt)
            by_class += baseline.class_rows(NONE)
            curves["none"] = baseline.curve
        spec = context.spec(data, model, trainer, defence=defence)
        trained = context.train_or_load(spec, stage=name if self.baseline else None)
        evaluation = self.evaluate(context, trained.network, attack, known, test)
        evaluation.write_rows({"defence": name}, learnt)
        context.record.table("by_class", by_class + evaluation.class_rows({"defence": name}))
        judge_robustness(evaluation, references, self.check_images)

        masks = "masking" in context.record.facts.get("verdict", "")
        if getattr(defence, "steps", 0) == 1 and self.check_images and not masks:
            context.remark(
                f"defence: training on one gradient step, as {name} does, can mask gradients; on {choices['dataset']} "
                "the checks find no masking; trustml experiment=robust_mnist_fgsm shows a network with masked gradients"
            )
        curves[name] = evaluation.curve
        subject = f"{choices['attack']} against {choices['model']} on {choices['dataset']}"
        context.record.plot("defended", defended_curves(curves, subject, attack.norm.value))
        context.plot_curves(name if self.baseline else "")
        evaluation.plot_examples(self.examples)
        evaluation.plot_loss_surfaces(self.surfaces)
