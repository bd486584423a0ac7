"""The measured robustness of a network under an attack, written as rows of metrics.csv and as plots.

Whoever plots imports matplotlib: that takes half a second, and the results are told before.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.confident import Confident
from trustml_cli.attacks.robustness_curve import EpsilonResult, Predictions, RobustnessCurve
from trustml_cli.attacks.surface import loss_surface
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split, random_subset
from trustml_cli.metrics.intervals import average, by_image, median, proportion
from trustml_cli.models.inference import gives_gradients
from trustml_cli.system.hardware import seeded
from trustml_cli.tasks.context import Context

SURE = 0.9  # an attack success with at least this confidence counts in sure_success_rate
LARGEST = 64  # pixels, the side of the largest images that the page has a slider of
POINTS = 25  # loss values along each side of a loss surface


@dataclass(frozen=True)
class RobustnessEvaluation:
    """The accuracy of `network` on the test images `images` under `attack`, at every epsilon of `curve`.

    `attack` is the attack as it was run: its target is a class number, and it is fitted if it needs training images.
    """

    context: Context
    network: nn.Module
    attack: Attack
    data: Dataset
    images: Split
    curve: RobustnessCurve
    white_box: RobustnessCurve | None = None
    """The curve of the attack that `attack` stands in for, from an attacker with full access."""

    def write_rows(self, defended: Mapping[str, str], learnt: Mapping[str, str]) -> None:
        """Write a row of metrics.csv for each epsilon and each network evaluated on the adversarial images.

        `defended` names the defence and is the first condition; `learnt` names the attacker's images and is the last.
        """
        record, curve, attack = self.context.record, self.curve, self.attack
        name, model = record.choices["attack"], record.choices["model"]
        for number, attacked in enumerate(curve.attacked):
            condition = {**defended, "attack": name, "norm": attack.norm.value, "epsilon": attacked.epsilon}
            judged = {model: (curve.clean, attacked.answers)}
            judged |= {other: (curve.clean_transferred[other], said) for other, said in attacked.transferred.items()}
            for scored_on, (clean, answers) in judged.items():
                row = robustness_row(curve.labels, clean, answers, attacked, attack) | self.distance
                if self.white_box and scored_on == model:
                    reached = successes(curve.labels, clean, self.white_box.attacked[number].answers, attack)
                    row |= proportion("white_box_success_rate", int(reached.sum()), int(curve.initially_right.sum()))
                scored = {"scored_on": scored_on} if attacked.transferred else {}
                record.metrics({**condition, **scored, **learnt}, **row)
        if isinstance(attack, Confident):
            record.note(headline="sure_success_rate")

        if curve.distance is not None:
            where = "_".join(["distances", *defended.values()])
            record.artifact(where, {"distance": curve.distance, "labels": curve.labels})

    @property
    def distance(self) -> dict[str, object]:
        """The median size of the smallest perturbations found, with its interval; empty if none were searched for."""
        return {} if self.curve.distance is None else median("median_distance", self.curve.distance)

    def class_rows(self, defended: Mapping[str, str]) -> list[dict[str, object]]:
        """Accuracy before and under attack of each class at each epsilon; `defended` names the defence."""
        curve, rows = self.curve, []
        for attacked in curve.attacked:
            for number, name in enumerate(self.data.classes):
                of_class = curve.labels == number
                count = int(of_class.sum())
                if not count:
                    continue
                right, still = (
                    int((answers.predicted[of_class] == number).sum()) for answers in (curve.clean, attacked.answers)
                )
                rows.append({
                    **defended, "epsilon": attacked.epsilon, "class": name,
                    **proportion("clean_accuracy", right, count), **proportion("robust_accuracy", still, count),
                })  # fmt: skip
        return rows

    @property
    def subject(self) -> str:
        """The attack, the network with its defence, and the data set, for the titles of plots."""
        record = self.context.record
        return f"{record.choices['attack']} against {record.subject}"

    def plot_curve(self) -> None:
        """Plot robust accuracy against epsilon, if there are at least two epsilons."""
        if len(self.curve.attacked) > 1:
            from trustml_cli.plots.robustness import robustness_curve

            figure = robustness_curve(self.curve, self.subject, self.attack.norm.value)
            self.context.record.plot("robustness", figure)

    def plot_examples(self, count: int) -> None:
        """Plot `count` images before and after the attack at each epsilon above 0."""
        if self.curve.attacked[-1].epsilon > 0:
            from trustml_cli.plots.robustness import adversarial_examples

            norm = self.attack.norm.value
            figure = adversarial_examples(self.curve, self.data.classes, count, self.subject, norm)
            self.context.record.plot("examples", figure)
            self.record_slider(count)

    def record_slider(self, count: int) -> None:
        """Record the same images at every epsilon, for the slider of the page; not of images larger than `LARGEST`."""
        curve, classes = self.curve, self.data.classes
        if max(curve.examples.shape[2:]) > LARGEST or len(curve.attacked) < 2:
            return
        from trustml_cli.plots.robustness import fooled_first
        from trustml_cli.plots.style import class_name, label_answer, side_by_side

        chosen = fooled_first(curve, count)
        frames = []
        for attacked in curve.attacked:
            answers = ((i, int(attacked.answers.predicted[i]), float(attacked.answers.confidence[i])) for i in chosen)
            captions = [
                (label_answer(class_name(classes, answer), sure), answer == int(curve.labels[i]))
                for i, answer, sure in answers
            ]
            frames.append((f"{attacked.epsilon:g}", side_by_side(attacked.examples[chosen]), captions))
        self.context.record.slider("epsilon", frames)

    def plot_transfer(self, count: int) -> None:
        """Plot `count` images with the answers of every other network, at the largest epsilon."""
        attacked, record = self.curve.attacked[-1], self.context.record
        if attacked.transferred and attacked.epsilon > 0:
            from trustml_cli.plots.transfer import transferred_answers

            figure = transferred_answers(
                self.curve, attacked, record.choices["model"], self.data.classes, count, self.subject,
                self.attack.norm.value,
            )  # fmt: skip
            record.plot("transfer", figure)

    def plot_loss_surfaces(self, count: int) -> None:
        """Plot the loss surface around `count` random images at the largest epsilon; at smaller ones it is often flat.

        Nothing is plotted in L0, at epsilon 0, or for a network without gradients.
        """
        context, norm, epsilon = self.context, self.attack.norm, self.curve.attacked[-1].epsilon
        if not count or epsilon == 0 or norm is Norm.l0:
            return
        x, y = next(batches(random_subset(self.images, count, context.seed), count, context.hardware.device))
        if not gives_gradients(self.network, x[:1]):
            return
        from trustml_cli.plots.loss_surface import loss_surfaces

        with seeded(context.seed):
            each = [
                loss_surface(self.network, x[i : i + 1], y[i : i + 1], epsilon, norm, POINTS) for i in range(len(x))
            ]
        figure = loss_surfaces(each, self.data.classes, f"{self.subject}, epsilon {epsilon:g}")
        context.record.plot("loss_surface", figure)


def successes(labels: Tensor, clean: Predictions, answers: Predictions, attack: Attack) -> Tensor:
    """Which correctly classified images are misclassified now (or classified as the target), bool [N]."""
    fell = answers.predicted != labels if attack.target is None else answers.predicted == attack.target
    return (clean.predicted == labels) & fell


def robustness_row(
    labels: Tensor, clean: Predictions, answers: Predictions, attacked: EpsilonResult, attack: Attack
) -> dict[str, object]:
    """The values of one row.

    `sure_success_rate` counts successes where the model predicts with a confidence of at least `SURE`.
    """
    right = clean.predicted == labels
    still_right = answers.predicted == labels
    reached = successes(labels, clean, answers, attack)
    sure = reached & (answers.confidence >= SURE)
    return {
        **by_image("clean_accuracy", right),
        **by_image("robust_accuracy", still_right),
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
