"""task=pate: a student that learns from a noisy vote of teachers on disjoint parts of the private images."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from trustml_cli.data.dataset import Dataset, DatasetSource, Split
from trustml_cli.data.relabelled import Relabelled
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, proportion, with_interval
from trustml_cli.models.model import Model
from trustml_cli.plots.pate import cost_over_answers, vote_histogram
from trustml_cli.privacy.accounting import ORDERS
from trustml_cli.privacy.dp_sgd import system_normal
from trustml_cli.privacy.fixmatch import FixMatch
from trustml_cli.privacy.inference import log_probability
from trustml_cli.privacy.measure import MembershipResult, Victim, evaluate
from trustml_cli.privacy.pate import ConfidentGnmax, Floats, epsilon
from trustml_cli.privacy.pate_release import released
from trustml_cli.privacy.promise import promise
from trustml_cli.system.errors import InputError, RunFailed, prefix_errors
from trustml_cli.system.files import digest
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.many import predicted_by_each
from trustml_cli.training.predict import Answers, predict
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.step import CROSS_ENTROPY, TrainingStep
from trustml_cli.training.trainer import Trainer

WATCHED = 100  # test images that training looks at after each epoch; many teachers have many epochs
SECRET = (
    "epsilon_data_dependent, the pictures, the accuracies of votes, teachers and the non-private network, "
    "artifacts/secret_votes and all stored networks but the student's are computed from private images without noise: "
    "publish them nowhere"
)


class Learning(Enum):
    """What the student learns from."""

    supervised = "supervised"
    """The answered images alone."""
    semi_supervised = "semi_supervised"
    """The answered and all other public images, by FixMatch."""


@dataclass(frozen=True, kw_only=True)
class Pate:
    """Train `teachers` on disjoint parts of the training images; a student asks them about public images.

    The share `public` of the test images is public and unlabelled: `queries` of them are asked about, until there are
    `answers` (null: however many), and the student is measured on the other test images. `threshold`, `sigma1` and
    `sigma2` are those of `ConfidentGnmax`. The answers, and so the student, are (ε, `delta`)-differentially private
    with respect to replacing one training image. The data-dependent ε is released at RDP order `release_order` with a
    noise of `release_noise` times its smooth sensitivity; `release_order` null: it is not.
    """

    columns: ClassVar[Columns] = (
        *conditions("teachers", "queries", "threshold", "sigma1", "sigma2", "student"),
        *headline(higher("student_accuracy")),
        *higher("nonprivate_accuracy"),
        *logged(lower("epsilon", "epsilon_data_dependent")),
        *sometimes(lower("epsilon_released")),
        *neither("delta", "accountant", "rehearsal", "asked", "answers", "answered_rate"),
        *logged(sometimes(higher("answer_accuracy"))),
        *lower("membership_auc", "epsilon_lower_bound", "nonprivate_membership_auc", "nonprivate_epsilon_lower_bound"),
        *higher("vote_accuracy", "teacher_accuracy"),
        *neither("images_per_teacher", "public_images"),
    )

    teachers: int
    queries: int
    answers: int | None
    public: float
    threshold: float
    sigma1: float
    sigma2: float
    delta: float
    student: Learning
    release_order: int | None
    release_noise: float
    noise_seed: int | None

    def __post_init__(self) -> None:
        require(self, "teachers", at_least=2)
        require(self, "queries", "answers", at_least=1)
        require(self, "sigma1", "sigma2", "release_noise", above=0)
        require(self, "public", "delta", above=0, below=1)
        require(self, "threshold", at_least=0)
        if self.threshold > self.teachers:
            raise ValueError(
                f"threshold: {self.teachers} teachers give no class more than {self.teachers} votes, got "
                f"{self.threshold:g}; use less, or more task.teachers"
            )
        if self.release_order is not None and (self.release_order < 2 or self.release_order not in ORDERS):
            raise ValueError(f"release_order: must be an integer from 2 to 63, or null, got {self.release_order}")

    def __call__(
        self, context: Context, dataset: DatasetSource, model: Model, student: Model, trainer: Trainer
    ) -> None:
        """Write the row, then the plots."""
        data = context.load(dataset)
        rest, asked = data.test.divide(self.public, context.seed_for("public", 1))
        self.check(data, asked, model, student, trainer)
        parts = self.parts(data, context)
        data = data.derive(f"public={self.public} seed={context.seed}", test=rest)
        few = rest.subset(torch.arange(min(WATCHED, len(rest))))
        networks = [each.network for each in context.train_or_load_many(
            [TrainingSpec(data=data.derive(f"part {number}/{self.teachers}", test=few, train=data.train.subset(part)),
                          model=model, trainer=trainer, seed=context.seed_for("teacher", number))
             for number, part in enumerate(parts, start=1)], stage="teacher", shown=False)]  # fmt: skip
        queries, normal = asked.subset(torch.arange(self.queries)), self.normal()
        predicted = predicted_by_each(networks, queries, context.hardware)
        votes = torch.stack([(predicted == number).sum(0) for number in range(len(data.classes))], 1)
        answers = self.aggregator.answers(votes, normal, self.most)
        given = answers >= 0
        if not given.any():
            raise RunFailed(f"none of {self.queries} queries was answered; lower task.threshold")
        votes, predicted, labels = votes[: len(answers)], predicted[:, : len(answers)], queries.labels[: len(answers)]
        told = self.student_spec(data, asked, answers, student, trainer, context.seed_for("student", 1))
        private = data.train.subset(parts.flatten()[: len(rest)])  # in random order
        taught, inside = answers_of(context, told, "student", rest, private)
        plain = TrainingSpec(data=data, model=student, trainer=trainer, seed=context.seed_for("student", 1))
        known, fitted = answers_of(context, plain, "non-private", rest, private)
        shown = membership(inside, taught, context.seed)

        counts, asked_for = votes.double().numpy(), given.double().numpy()
        names = ("teachers", "queries", "threshold", "sigma1", "sigma2")
        context.record.metrics(
            {**{name: getattr(self, name) for name in names}, "student": self.student.value},
            **proportion("student_accuracy", int(taught.correct.sum()), len(rest)),
            **proportion("nonprivate_accuracy", int(known.correct.sum()), len(rest)),
            **self.privacy(counts, asked_for, normal),
            **exposure(shown),
            **exposure(membership(fitted, known, context.seed), "nonprivate_"),
            asked=len(answers),
            answers=int(given.sum()),
            **proportion("answered_rate", int(given.sum()), len(answers)),
            **proportion("answer_accuracy", int((answers == labels).sum()), int(given.sum())),
            **proportion("vote_accuracy", int((votes.argmax(1) == labels).sum()), len(labels)),
            **average("teacher_accuracy", (predicted == labels).double().mean(1)),
            images_per_teacher=parts.shape[1],
            public_images=len(asked),
        )
        self.checks(context, len(data.train), parts)
        context.record.artifact("answers", {"answers": answers})
        context.record.artifact("secret_votes", {"votes": votes})
        subject = context.record.subject
        context.record.plot("votes", vote_histogram(votes.amax(1), given, self.teachers, self.threshold, subject))
        context.record.plot("epsilon", self.plot_cost(counts, asked_for, subject))
        self.check_memory(context, shown)

    @property
    def aggregator(self) -> ConfidentGnmax:
        """What answers."""
        return ConfidentGnmax(threshold=self.threshold, sigma1=self.sigma1, sigma2=self.sigma2)

    @property
    def most(self) -> int:
        """Answers after which nothing more is asked."""
        return min(self.queries, self.answers or self.queries)

    @property
    def epsilon(self) -> float:
        """ε whatever the votes are."""
        return float(epsilon(self.aggregator.worst_rdp(self.queries, self.most), self.delta))

    def normal(self) -> Callable[[int], Tensor]:
        """Standard normal numbers from the operating system, or from `noise_seed`."""
        if self.noise_seed is None:
            return system_normal
        random = torch.Generator().manual_seed(self.noise_seed)
        return lambda count: torch.randn(count, generator=random, dtype=torch.float64)

    def check(self, data: Dataset, asked: Split, model: Model, student: Model, trainer: Trainer) -> None:
        """Raise `InputError` for what does not fit, before anything is trained."""
        if self.teachers > len(data.train):
            raise InputError(
                f"task.teachers: {len(data.train)} training images make no {self.teachers} parts; use fewer teachers"
            )
        if self.queries > len(asked):
            raise InputError(
                f"task.queries: {len(asked)} of the test images are public; ask about as many at most, or take a "
                "larger task.public"
            )
        for key, each in (("model", model), ("student", student)):
            if each.checkpoint is not None:
                raise InputError(f"{key}.checkpoint: must be null, because teachers and student are trained here")
            with prefix_errors(key):
                each.build(input_spec(data))
        if self.student is Learning.semi_supervised:
            if len(data.shape) != 3:
                raise InputError("task.student: semi_supervised warps images, and these are none; use supervised")
            if not trainer.takes_steps or getattr(trainer, "patience", None) is not None:
                raise InputError(
                    "task.student: semi_supervised needs training by gradients, and no images set aside; "
                    "take supervised, or trainer.patience=null"
                )

    def parts(self, data: Dataset, context: Context) -> Tensor:
        """The training images of each teacher, [T, n]: disjoint random parts; what is left over is used by none."""
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(context.seed_for("parts", 1)))
        size = len(data.train) // self.teachers
        return order[: self.teachers * size].view(self.teachers, size)

    def student_spec(
        self, data: Dataset, asked: Split, answers: Tensor, student: Model, trainer: Trainer, seed: int
    ) -> TrainingSpec:
        """The student, trained on the answered images, or on all public images of which these have labels."""
        known = (answers >= 0).nonzero()[:, 0]
        labels, rows = answers[known], known
        step: TrainingStep = CROSS_ENTROPY
        if self.student is Learning.semi_supervised:
            others = torch.ones(len(asked), dtype=torch.bool).index_fill(0, known, False).nonzero()[:, 0]
            rows, labels = torch.cat([known, others]), torch.cat([labels, torch.full_like(others, -1)])
            step = FixMatch(labelled=len(known))
        train = Relabelled(asked.subset(rows), labels)
        told = data.derive(f"answers {digest([rows.tolist(), labels.tolist()])}", train=train)
        return TrainingSpec(data=told, model=student, trainer=trainer, seed=seed, step=step)

    def privacy(self, votes: Floats, given: Floats, normal: Callable[[int], Tensor]) -> dict[str, Any]:
        """The columns of the privacy cost; `votes` [Q, K], and `given` [Q] is 1 where there is an answer."""
        rdp = self.aggregator.rdp(votes, given)
        freed = None
        if self.release_order is not None:
            freed = released(self.aggregator, votes, given, self.delta, self.release_order, self.release_noise, normal)
        return {
            "epsilon": self.epsilon,
            "epsilon_data_dependent": float(epsilon(rdp.sum(0), self.delta)),
            "epsilon_released": freed,
            "delta": self.delta,
            "accountant": "rdp",
            "rehearsal": self.noise_seed is not None,
        }

    def plot_cost(self, votes: Floats, given: Floats, subject: str) -> Figure:
        """Plot both ε after each query over the answers so far."""
        answers = given.cumsum().tolist()
        worst = [
            float(epsilon(self.aggregator.worst_rdp(number, int(count)), self.delta))
            for number, count in enumerate(answers, start=1)
        ]
        dependent = epsilon(self.aggregator.rdp(votes, given).cumsum(0), self.delta).tolist()
        return cost_over_answers(answers, worst, dependent, self.epsilon, self.delta, subject)

    def check_memory(self, context: Context, shown: MembershipResult) -> None:
        """Check that the student does not show a larger ε than is claimed; raises `RunFailed` if it does."""
        figure = f"at least {shown.epsilon_lower_bound:.3g} by its loss, {self.epsilon:.3g} claimed"
        holds = shown.epsilon_lower_bound <= self.epsilon
        context.record.check("the student shows no larger epsilon than claimed", holds, figure)
        if not holds:
            raise RunFailed(f"the student is less private than it claims: epsilon is {figure}")

    def checks(self, context: Context, examples: int, parts: Tensor) -> None:
        """Record what the promise rests on."""
        for name, passed, figure in promise(
            "task.noise_seed", self.noise_seed, self.delta, examples, self.epsilon, "RDP"
        ):
            context.record.check(name, passed, figure)
        each, left = parts.shape[1], examples - parts.numel()
        figure = f"{self.teachers} parts of {each:,} training images, {left:,} in none"
        context.record.check(
            "no image is in the parts of two teachers", len(set(parts.flatten().tolist())) == parts.numel(), figure
        )
        if self.delta * examples >= 1:
            context.remark(f"task.delta: {self.delta:g} is not below 1 over the {examples:,} training images")
        context.remark(SECRET)


def answers_of(context: Context, spec: TrainingSpec, stage: str, *splits: Split) -> list[Answers]:
    """The predictions of a trained network on several splits."""
    network = context.train_or_load(spec, stage=stage).network
    return [predict(network, split, context.hardware) for split in splits]


def membership(private: Answers, others: Answers, seed: int) -> MembershipResult:
    """How well a network's loss tells private images from others (Yeom et al. 2018, arXiv 1709.01604)."""
    labels = torch.cat([private.labels, others.labels])
    scores = log_probability(torch.cat([private.logits, others.logits]).double(), labels)
    return evaluate([Victim(scores, torch.arange(len(labels)) < len(private.labels))], seed)


def exposure(shown: MembershipResult, prefix: str = "") -> dict[str, Any]:
    """The columns of a membership attack."""
    values = with_interval(f"{prefix}membership_auc", shown.values["auc"], shown.intervals["auc"], shown.n)
    return {**values, f"{prefix}epsilon_lower_bound": shown.epsilon_lower_bound}
