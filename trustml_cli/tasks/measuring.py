"""What tasks that attack a network share: the attack, its rows, the checks and the verdict, the pictures."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from trustml_cli.attacks.attack import Attack, Norm, Sees
from trustml_cli.attacks.attack_view import IMAGES, whom_to_ask
from trustml_cli.attacks.measure import Attacked, Counted, Curve, Predictions, attack_curve
from trustml_cli.attacks.surface import loss_surface
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split, drawn
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, higher, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, proportion
from trustml_cli.models.inference import NoGradient, gives_gradients
from trustml_cli.models.model import Model
from trustml_cli.plots.loss_surface import loss_surfaces
from trustml_cli.plots.robustness import adversarial_examples
from trustml_cli.system.errors import InputError, naming
from trustml_cli.system.hardware import own_randomness
from trustml_cli.tasks.attacker import AttackerImages
from trustml_cli.tasks.context import Context, describe
from trustml_cli.training.predict import BATCH

log = logging.getLogger(__name__)

SAVED = 100  # adversarial images kept for each epsilon
SURE = 0.9  # confidence from which on a success is called sure
POINTS = 25  # of the loss, along each side of such a drawing


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Attack `images` random test images (None: all) at each `epsilon` (pixel units), and judge what comes of it.

    With a target, images of its own class are left out. `check_images` of the images are attacked again, by other
    attacks too, to see whether the numbers can be believed (0 for no such checks). `examples` images are shown for
    each epsilon, and the loss around `surfaces` images is drawn. Attacks learn from
    `attacker_images`, those that learn anything.
    """

    columns: ClassVar[Columns] = (
        *sometimes(conditions("defence")),
        *conditions("attack", "norm", "epsilon"),
        *sometimes(conditions("scored_on", "attacker_images")),
        *higher("clean_accuracy", "robust_accuracy"),
        *lower("attack_success_rate"),
        *neither("mean_l0", "mean_l2", "mean_linf", "mean_confidence"),
        *lower("seconds"),
        *neither("mean_l1", "queries", "gradients"),
        *lower("sure_success_rate"),
    )

    epsilon: list[float]
    images: int | None
    check_images: int
    examples: int
    surfaces: int
    attacker_images: AttackerImages

    def __post_init__(self) -> None:
        check_epsilons(self.epsilon)
        for name in ("check_images", "surfaces"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must be at least 0, got {getattr(self, name)}")
        if self.images is not None and self.images < 1:
            raise ValueError(f"images: must be at least 1 (or null for all), got {self.images}")
        if not 1 <= self.examples <= SAVED:
            raise ValueError(f"examples: must be between 1 and {SAVED}, got {self.examples}")

    def begin(
        self, context: Context, data: Dataset, model: Model, attack: Attack, defence: Defence
    ) -> tuple[Attack, Split]:
        """The attack with its target as a number, and the images to attack; whatever is wrong with either is said."""
        attack, test = aimed(attack, data)
        with naming("model"), own_randomness(context.seed):
            fresh = defence.around(model.build(describe(data)), data.shape)
        with naming("attack"):
            attack.check(fresh, data.shape)
            check_sight(attack, fresh, data.shape)
        return attack, test if self.images is None else drawn(test, self.images, context.seed)

    def run(
        self,
        context: Context,
        network: nn.Module,
        attack: Attack,
        data: Dataset,
        test: Split,
        elsewhere: Mapping[str, nn.Module] | None = None,
    ) -> tuple[Curve, Attack]:
        """The attack at every epsilon, smallest first; and the attack, with what it learnt from training images.

        The networks `elsewhere` are shown the same images.
        """
        images = batches(test.on(context.hardware.device), BATCH, context.hardware.device)
        progress = tqdm(images, total=-(-len(test) // BATCH), desc="attacking", unit="batch", disable=None)
        learning, asked = Counted(network), None
        if any(self.epsilon):
            attack, learning = prepared(context, attack, network, data)
        with own_randomness(context.seed):
            if any(self.epsilon):
                some = next(batches(test, IMAGES, context.hardware.device))
                asked = whom_to_ask(network, *some, context.hardware.compiled)
            curve = attack_curve(network, attack, progress, sorted(set(self.epsilon)), SAVED, elsewhere, asked)
        assert curve.asked is not None
        context.record.note(attack_asked=curve.asked.which)
        if curve.batch_size is not None:
            log.warning("memory ran out: batches of %d images were cut to %d", BATCH, curve.batch_size)
            context.record.note(batch_size=curve.batch_size)
        if learning.queries:
            context.record.note(learning_queries=learning.queries, learning_gradients=learning.gradients)
        return curve, attack

    def rows(
        self, context: Context, curve: Curve, attack: Attack, defended: Mapping[str, str], learnt: Mapping[str, str]
    ) -> None:
        """A row for each epsilon and network shown the images; a row begins with how the first is `defended`.

        What the attack is `learnt` from stands at the end of what was varied.
        """
        name, model = context.record.choices["attack"], context.record.choices["model"]
        for attacked in curve.attacked:
            condition = {**defended, "attack": name, "norm": attack.norm.value, "epsilon": attacked.epsilon}
            judged = {model: (curve.clean, attacked.answers)}
            judged |= {other: (curve.clean_elsewhere[other], said) for other, said in attacked.elsewhere.items()}
            for shown_to, (clean, answers) in judged.items():
                row = robustness(curve.labels, clean, answers, attacked, attack)
                scored = {"scored_on": shown_to} if attacked.elsewhere else {}
                context.record.metrics({**condition, **scored, **learnt}, **row)
                trained = f" (defence: {defended['defence']})" if defended and shown_to == model else ""
                log.info(
                    "epsilon %g: robust accuracy of %s%s %.4f, n = %d",
                    attacked.epsilon, shown_to, trained, row["robust_accuracy"], len(curve.labels),
                )  # fmt: skip

    def subject(self, context: Context) -> str:
        """What the pictures are of."""
        choices = context.record.choices
        network, defence = choices["model"], choices["defence"]
        defended = network if defence == "none" else f"{network} defended by {defence}"
        return f"{choices['attack']} against {defended} on {choices['dataset']}"

    def pictures(
        self, context: Context, curve: Curve, network: nn.Module, attack: Attack, data: Dataset, test: Split
    ) -> None:
        """Images, and the loss around some of them."""
        norm, subject = attack.norm, self.subject(context)
        for attacked in curve.attacked:
            if attacked.epsilon > 0:
                figure = adversarial_examples(curve, attacked, data.classes, self.examples, subject, norm.value)
                context.record.plot(f"examples_epsilon_{attacked.epsilon:g}", figure)
        epsilon = curve.attacked[-1].epsilon  # the largest: a smaller one often shows a plain
        if not self.surfaces or epsilon == 0 or norm is Norm.l0:
            return
        x, y = next(batches(drawn(test, self.surfaces, context.seed), self.surfaces, context.hardware.device))
        if not gives_gradients(network, x[:1]):
            return
        with own_randomness(context.seed):
            each = [loss_surface(network, x[i : i + 1], y[i : i + 1], epsilon, norm, POINTS) for i in range(len(x))]
        context.record.plot("loss_surface", loss_surfaces(each, data.classes, f"{subject}, epsilon {epsilon:g}"))


def check_epsilons(values: list[float]) -> None:
    """Raise ValueError unless they are budgets, and not none."""
    if not values:
        raise ValueError("epsilon: needs at least one number")
    for value in values:
        if not (value >= 0 and isfinite(value)):
            raise ValueError(f"epsilon: must be a number of at least 0, got {value:g}")


def check_sight(attack: Attack, network: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise ValueError where the attack follows gradients and the network, which is left in eval mode, gives none."""
    if attack.sees in (Sees.gradients, Sees.own_images) and not gives_gradients(
        network.eval(), torch.full((1, *shape), 0.5)
    ):
        raise NoGradient


def aimed(attack: Attack, data: Dataset) -> tuple[Attack, Split]:
    """The attack with its target as a number, and the test images that are not of that class already."""
    if attack.target is None:
        return attack, data.test
    with naming("attack.target"):
        target = data.class_number(attack.target)
    test = data.test.subset((data.test.labels != target).nonzero()[:, 0])
    if not len(test):
        raise InputError("attack.target: every test image is of this class; take another")
    return replace(attack, target=target), test


def prepared(context: Context, attack: Attack, network: nn.Module, data: Dataset) -> tuple[Attack, Counted]:
    """The attack with what it learns from training images, drawn at random; and what counts the questions for that."""
    counted = Counted(network)
    if not attack.learns_from:
        return attack, counted
    own = drawn(data.train, attack.learns_from, context.seed)
    x, y = next(batches(own, len(own), context.hardware.device))
    with own_randomness(context.seed):
        return attack.prepared(counted, x, y), counted


def robustness(
    labels: Tensor, clean: Predictions, answers: Predictions, attacked: Attacked, attack: Attack
) -> dict[str, object]:
    """The values of one row. Success: wrong (or taken for the target) after the attack, of those right before it.

    It is sure where the model has a confidence of at least `SURE` in its answer.
    """
    right = clean.predicted == labels
    still_right = answers.predicted == labels
    reached = right & (~still_right if attack.target is None else answers.predicted == attack.target)
    sure = reached & (answers.confidence >= SURE)
    return {
        **proportion("clean_accuracy", int(right.sum()), len(right)),
        **proportion("robust_accuracy", int(still_right.sum()), len(right)),
        **proportion("attack_success_rate", int(reached.sum()), int(right.sum())),
        **average("mean_l0", attacked.sizes[Norm.l0]),
        **average("mean_l2", attacked.sizes[Norm.l2]),
        **average("mean_linf", attacked.sizes[Norm.linf]),
        **average("mean_confidence", answers.confidence),
        "seconds": attacked.seconds,
        **average("mean_l1", attacked.sizes[Norm.l1]),
        "queries": attacked.queries,
        "gradients": attacked.gradients,
        **proportion("sure_success_rate", int(sure.sum()), int(right.sum())),
    }
