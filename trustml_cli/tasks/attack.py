"""task=attack and task=fgsm: the robust accuracy of a classifier under an attack."""

from collections.abc import Mapping
from dataclasses import dataclass

from trustml_cli.attacks.attack import Attack
from trustml_cli.data.dataset import DatasetSource
from trustml_cli.defences.defence import Defence
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.attacker_images import attacker_condition, remark_on_checkpoints, split_for_attacker
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.robustness import RobustnessTask
from trustml_cli.tasks.verdict import judge_robustness
from trustml_cli.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class MeasureRobustness(RobustnessTask):
    """Measure the accuracy of a network on adversarial images.

    The models named in `transfer_to`, trained without a defence, are evaluated on the same adversarial images.
    """

    transfer_to: list[str] | None

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        attack: Attack,
        references: Mapping[str, Attack],
        others: Mapping[str, Model],
        defence: Defence,
    ) -> None:
        """Write one row for each epsilon, smallest first, the same by class, the checks, the verdict and the plots."""
        if context.record.choices["model"] in others:
            raise InputError(f"task.transfer_to: {context.record.choices['model']} is under attack; choose another")
        data = context.load(dataset)
        attack, test = self.prepare(context, data, model, attack, defence)
        learns_from = attack.learns_from
        data, known = split_for_attacker(data, learns_from, self.attacker_images, context.seed)
        if learns_from:
            remark_on_checkpoints(context, [model], self.attacker_images)
        stage = context.record.choices["model"] if others else None
        network = context.train_or_load(context.spec(data, model, trainer, defence=defence), stage=stage).network
        transfer_models = {
            name: context.train_or_load(context.spec(data, other, trainer), stage=name).network
            for name, other in others.items()
        }

        evaluation = self.evaluate(context, network, attack, known, test, transfer_models)
        defended = defence_condition(context, defence)
        evaluation.write_rows(defended, attacker_condition(learns_from, self.attacker_images))
        context.record.table("by_class", evaluation.class_rows(defended))
        judge_robustness(evaluation, references, self.check_images)
        evaluation.plot_curve()
        evaluation.plot_transfer(self.examples)
        evaluation.plot_examples(self.examples)
        evaluation.plot_loss_surfaces(self.surfaces)


def defence_condition(context: Context, defence: Defence) -> dict[str, str]:
    """The column that names the defence; empty for an undefended network."""
    return {"defence": context.record.choices["defence"]} if type(defence) is not Defence else {}
