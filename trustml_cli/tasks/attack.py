"""task=fgsm: what is left of a classifier's accuracy when its images are attacked."""

import logging
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite

import torch
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.measure import Attacked, Curve, answer, attack_curve, within_budget
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import DatasetSource
from trustml_cli.errors import InputError, naming
from trustml_cli.hardware import own_randomness
from trustml_cli.models.model import Model
from trustml_cli.plots.robustness import adversarial_examples, robustness_curve
from trustml_cli.statistics import average, proportion
from trustml_cli.tasks.context import Context
from trustml_cli.training.predict import BATCH
from trustml_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

SAVED = 100  # adversarial images kept for each epsilon
ZERO_GRADIENTS = 0.01  # the share of images from which on gradients are called masked
RISE = 0.01  # accuracy may rise with epsilon by so much before it is held against the attack


@dataclass(frozen=True, kw_only=True)
class MeasureRobustness:
    """Attack every test image at each `epsilon` (pixel units). With a target, images of its own class are left out.

    `examples` images are shown for each epsilon.
    """

    epsilon: list[float]
    examples: int

    def __post_init__(self) -> None:
        if not self.epsilon:
            raise ValueError("epsilon: needs at least one number")
        for value in self.epsilon:
            if not (value >= 0 and isfinite(value)):
                raise ValueError(f"epsilon: must be a number of at least 0, got {value:g}")
        if not 1 <= self.examples <= SAVED:
            raise ValueError(f"examples: must be between 1 and {SAVED}, got {self.examples}")

    def __call__(
        self, context: Context, dataset: DatasetSource, model: Model, trainer: Trainer, attack: Attack
    ) -> None:
        """One row for each epsilon, smallest first, then the checks and the pictures."""
        with naming("trainer"):
            trainer.check(model)
        data = dataset.load()
        test = data.test
        if attack.target is not None:
            with naming("attack.target"):
                target = data.class_number(attack.target)
            attack = replace(attack, target=target)
            test = test.subset((test.labels != target).nonzero()[:, 0])
            if not len(test):
                raise InputError("attack.target: every test image is of this class; take another")
        network = context.trained(data, model, trainer).network

        epsilons = sorted(set(self.epsilon))
        images = batches(test.on(context.hardware.device), BATCH, context.hardware.device)
        progress = tqdm(images, total=-(-len(test) // BATCH), desc="attacking", unit="batch", disable=None)
        with own_randomness(context.seed):
            curve = attack_curve(network, attack, progress, epsilons, keep=SAVED)

        context.record.headline("robust_accuracy")
        name, norm = context.record.choices["attack"], attack.norm
        for attacked in curve.attacked:
            row = robustness(curve, attacked, attack)
            context.record.metrics({"attack": name, "norm": norm.value, "epsilon": attacked.epsilon}, **row)
            log.info("epsilon %g: robust accuracy %.4f, n = %d", attacked.epsilon, row["robust_accuracy"], len(test))
        check_gradients(context, curve)
        check_monotone(context, curve)
        check_saved(context, curve, network, norm)
        subject = f"{name} against {context.record.choices['model']} on {context.record.choices['dataset']}"
        context.record.plot("robustness", robustness_curve(curve, subject, norm.value))
        for attacked in curve.attacked:
            if attacked.epsilon > 0:
                figure = adversarial_examples(curve, attacked, data.classes, self.examples, subject, norm.value)
                context.record.plot(f"examples_epsilon_{attacked.epsilon:g}", figure)


def robustness(curve: Curve, attacked: Attacked, attack: Attack) -> dict[str, object]:
    """The values of one row. Success: wrong (or taken for the target) after the attack, of those right before it."""
    right = curve.initially_right
    still_right = attacked.predicted == curve.labels
    reached = ~still_right if attack.target is None else attacked.predicted == attack.target
    return {
        **proportion("clean_accuracy", int(right.sum()), len(right)),
        **proportion("robust_accuracy", int(still_right.sum()), len(right)),
        **proportion("attack_success_rate", int((reached & right).sum()), int(right.sum())),
        **average("mean_l0", attacked.sizes[Norm.l0]),
        **average("mean_l2", attacked.sizes[Norm.l2]),
        **average("mean_linf", attacked.sizes[Norm.linf]),
        **average("mean_confidence", attacked.confidence),
        "seconds": attacked.seconds,
        **average("mean_l1", attacked.sizes[Norm.l1]),
    }


def check_gradients(context: Context, curve: Curve) -> None:
    """A gradient of zero hides the way from an attack that follows it, and its number looks too good."""
    share = curve.zero_gradient.double().mean().item()
    context.record.check("gradients are not zero", share <= ZERO_GRADIENTS, f"{share:.2%} of images have none")


def check_monotone(context: Context, curve: Curve) -> None:
    """A larger budget contains the smaller one: accuracy that rises with it speaks against the attack."""
    accuracy = [(attacked.predicted == curve.labels).double().mean().item() for attacked in curve.attacked]
    rises = [later - earlier for earlier, later in pairwise(accuracy)]
    largest = max(rises, default=0.0)
    passed = largest <= RISE if rises else None
    context.record.check("accuracy does not rise with epsilon", passed, f"largest rise {max(largest, 0):.4f}")


def check_saved(context: Context, curve: Curve, network: nn.Module, norm: Norm) -> None:
    """Save the first images, read them back, and see that they are in range, within budget and judged the same."""
    tensors = {f"epsilon_{attacked.epsilon:g}": attacked.examples for attacked in curve.attacked}
    saved = load_file(context.record.artifact("adversarial", {"original": curve.examples, **tensors}))
    over, changed = 0, 0
    for attacked in curve.attacked:
        x_adv = saved[f"epsilon_{attacked.epsilon:g}"]
        over += not within_budget(x_adv, saved["original"], attacked.epsilon, norm)
        predicted = torch.cat(
            [answer(network, part.to(context.hardware.device))[0] for part in torch.split(x_adv, BATCH)]
        )
        changed += int((predicted != attacked.predicted[: len(predicted)]).sum())
    count = f"of {len(curve.attacked)} epsilons"
    context.record.check("saved images are in [0, 1] and within epsilon", over == 0, f"{over} {count} over")
    context.record.check("saved images are judged the same", changed == 0, f"{changed} answers changed")
