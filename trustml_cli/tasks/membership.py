"""task=membership: inference of the examples that a classifier was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from trustml_cli.config.instantiate import chosen
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, Split
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import wilson_interval, with_interval
from trustml_cli.models.model import Model
from trustml_cli.plots.membership import auc_over_references, exposed_members, membership_curves
from trustml_cli.privacy.inference import Inference, Observations
from trustml_cli.privacy.measure import MEASURES, MembershipResult, Victim, evaluate
from trustml_cli.privacy.views import MOST, views
from trustml_cli.system.errors import InputError, RunFailed
from trustml_cli.system.hardware import BatchSplitter, Hardware
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.member_pool import FEWEST, Members, Pool, random_halves, training_images
from trustml_cli.training.predict import BATCH, predict
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Attack networks by each `inference` with each number of `references`; the rows are means over the victims.

    `members` says what the victims are. The references are trained like them, on random halves of the `pool`. `views`
    is the number of versions of an image that the networks are asked about. `claim` is the ε that is claimed for a
    checkpoint; of networks trained here, it is what their trainer guarantees.
    """

    columns: ClassVar[Columns] = (
        *conditions("inference", "references"),
        *headline(lower("auc")),
        *logged(lower("tpr_at_1_fpr")),
        *lower("tpr_at_0.1_fpr", "advantage"),
        *logged(lower("epsilon_lower_bound")),
        *neither("false_positives_at_1_fpr", "false_positives_at_0.1_fpr"),
        *neither("train_accuracy"),
        *higher("test_accuracy"),
        *neither("victims", "training_examples"),
        *sometimes(lower("epsilon")),
    )

    inference: list[str]
    references: list[int]
    members: Members
    pool: int | None
    views: int
    examples: int
    claim: float | None

    def __post_init__(self) -> None:
        if not self.references or min(self.references) < 0:
            raise ValueError(f"references: must be at least 0, got {self.references}")
        require(self, "pool", at_least=2 * FEWEST)
        require(self, "views", at_least=1, at_most=MOST)
        require(self, "examples", at_least=1)
        require(self, "claim", above=0)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        inference: Mapping[str, Inference],
        defence: Defence,
    ) -> None:
        """Write one row for each attack and number of references, then the plots."""
        attacks = chosen(self.inference, inference, "task.inference")
        self.check(attacks)
        data = context.load(dataset)
        if self.views > 1 and len(data.shape) != 3:
            raise InputError("task.views: only images have more than one view; use 1")
        spec = context.spec(data, model, trainer, defence=defence)
        if not isinstance(spec, TrainingSpec):
            raise InputError("defence: this task needs a way to train; use none, or another than rectify")
        if self.claim is not None and spec.trains:
            raise InputError("task.claim: is for model.checkpoint, and this network is trained here; use null")
        if self.members is Members.half and not spec.trains:
            raise InputError("model.checkpoint: its members are its training images; add task.members=train")
        design = random_halves if self.members is Members.half else training_images
        pool = design(context, spec, self.pool, max(self.references))

        networks = [each.network for each in context.train_or_load_many(pool.specs, stage="network")]
        logits = ask(networks, pool.split, self.views, context.hardware)
        shared = accuracies(networks, logits, pool, data, context.hardware)
        shared |= {"victims": pool.victims, "training_examples": len(pool.specs[0].data.train)}
        claimed = trainer.columns(len(pool.specs[0].data.train), ()).get("epsilon") if spec.trains else self.claim
        shared |= {} if claimed is None else {"epsilon": claimed}
        results: dict[tuple[str, int], MembershipResult] = {}
        scored: dict[tuple[str, int], list[Victim]] = {}
        for job in Progress(self.jobs(attacks), desc="inferring", unit="attack"):
            name, count = job
            scored[job] = attacked(attacks[name], logits, pool.split.labels, pool.inside, pool.victims, count)
            results[job] = evaluate(scored[job], context.seed)
            context.record.metrics({"inference": name, "references": count}, **row(results[job]), **shared)
        self.check_chance(context, attacks, networks, pool)
        check_alike(context, networks, pool)
        kept = {f"{name}.{count}": torch.stack([one.scores for one in scored[name, count]]) for name, count in scored}
        context.record.artifact("scores", {**kept, "members": pool.inside[: pool.victims]})
        self.plot(context, pool, results, scored)
        check_claim(context, claimed, results)

    def check(self, attacks: Mapping[str, Inference]) -> None:
        """Raise `InputError` where an attack needs more references than there are."""
        for name, attack in attacks.items():
            if attack.fewest_references > max(self.references):
                raise InputError(
                    f"task.references: {name} needs at least {attack.fewest_references}, got {max(self.references)}; "
                    "take more, or task.inference=loss"
                )

    def jobs(self, attacks: Mapping[str, Inference]) -> list[tuple[str, int]]:
        """Attacks with the numbers of references that they can work with; those that use none have 0, once."""
        counts = sorted(set(self.references))
        return [
            (name, count)
            for name, attack in attacks.items()
            for count in (counts if attack.fewest_references else [0])
            if count >= attack.fewest_references
        ]

    def check_chance(
        self, context: Context, attacks: Mapping[str, Inference], networks: Sequence[nn.Module], pool: Pool
    ) -> None:
        """Check that attacks are at chance on examples of no training set, with memberships drawn like the real ones.

        An attack that is not makes use of how the training sets were drawn.
        """
        if len(pool.outside) < 2 * FEWEST:
            return
        logits = ask(networks, pool.outside, self.views, context.hardware)
        random = torch.Generator().manual_seed(context.seed_for("chance", 1))
        inside = torch.rand(len(networks), len(pool.outside), generator=random) < 0.5
        for name, attack in attacks.items():
            count = max(self.references) if attack.fewest_references else 0
            result = evaluate(attacked(attack, logits, pool.outside.labels, inside, pool.victims, count), context.seed)
            value, (low, high) = result.values["auc"], result.intervals["auc"]
            figure = f"AUC {value:.3f} ({low:.3f} to {high:.3f}), n = {result.n:,}"
            beyond = max(low - 0.5, 0.5 - high, 0)  # a 95 % interval misses 0.5 in one of 20 cases
            holds = beyond <= (high - low) / 2
            context.record.check(f"{name} is at chance on examples of no training set", holds, figure)

    def plot(
        self,
        context: Context,
        pool: Pool,
        results: Mapping[tuple[str, int], MembershipResult],
        scored: Mapping[tuple[str, int], Sequence[Victim]],
    ) -> None:
        """Plot ROC curves with the most references, AUC over references, and the most exposed members."""
        most = max(self.references)
        subject = context.record.subject
        whole = f"{subject}: {pool.victims} victims, {most} references" if most else subject
        last = {name: result for (name, count), result in results.items() if count in (0, most)}
        context.record.plot("roc", membership_curves(last, whole))
        if len({count for _, count in results if count}) > 1:
            context.record.plot("references", auc_over_references(results, subject))
        if len(pool.split.shape) == 3:
            best = max(last, key=lambda name: last[name].values["auc"])
            self.plot_exposed(context, pool, best, scored[best, most if (best, most) in scored else 0][0])

    def plot_exposed(self, context: Context, pool: Pool, attack: str, victim: Victim) -> None:
        """Plot the members with the highest scores, each beside the most similar other training image."""
        members = victim.member.nonzero()[:, 0]
        most = victim.scores[members].argsort(descending=True)[: self.examples]
        cpu = torch.device("cpu")
        training = torch.cat([x for x, _ in batches(pool.split.subset(members), BATCH, cpu)])
        distance = torch.cdist(training[most].flatten(1), training.flatten(1))
        nearest = distance.scatter(1, most[:, None], torch.inf).argmin(1)
        classes = pool.specs[0].data.classes
        names, others = (
            [classes[int(number)] for number in pool.split.labels[members[which]]] for which in (most, nearest)
        )
        subject = f"{attack}: {context.record.subject}"
        figure = exposed_members(training[most], names, training[nearest], others, subject)
        context.record.plot("exposed", figure)


@torch.no_grad()
def ask(networks: Sequence[nn.Module], split: Split, count: int, hardware: Hardware) -> Tensor:
    """The logits of each network for `count` views of each example, float64 [K, V, N, C] on the CPU."""

    def answered(x: Tensor, _: Tensor) -> Tensor:
        shown = list(views(x, count))
        return torch.stack([torch.stack([network(view).cpu().double() for view in shown]) for network in networks])

    parts = BatchSplitter().over(batches(split, BATCH, hardware.device), answered)
    return torch.cat(list(parts), dim=2)


def attacked(
    attack: Inference, logits: Tensor, labels: Tensor, inside: Tensor, victims: int, references: int
) -> list[Victim]:
    """The scores of each of the first `victims` networks, attacked with the `references` networks that follow it."""
    found = []
    for victim in range(victims):
        others = [(victim + step) % len(logits) for step in range(1, references + 1)]
        seen = Observations(logits[victim], labels, logits[others], inside[others])
        found.append(Victim(attack.score(seen), inside[victim]))
    return found


def row(result: MembershipResult) -> dict[str, object]:
    """The measured values of one row, with their intervals."""
    values: dict[str, object] = {}
    for name in MEASURES:
        values |= with_interval(name, result.values[name], result.intervals[name], result.n)
    counts = {f"false_positives_{name.removeprefix('tpr_')}": count for name, count in result.false_positives.items()}
    return {**values, "epsilon_lower_bound": result.epsilon_lower_bound, **counts}


def accuracies(
    networks: Sequence[nn.Module], logits: Tensor, pool: Pool, data: Dataset, hardware: Hardware
) -> dict[str, object]:
    """Mean accuracy of the victims on their members in the pool and on the test images; n counts each example once."""
    right = logits[: pool.victims, 0].argmax(-1) == pool.split.labels
    inside = pool.inside[: pool.victims]
    trained = [float(mine[own].double().mean()) for mine, own in zip(right, inside, strict=True)]
    tested = [predict(network, data.test, hardware).accuracy for network in networks[: pool.victims]]
    return {
        **mean_share("train_accuracy", trained, int(inside[0].sum())),
        **mean_share("test_accuracy", tested, len(data.test)),
    }


def mean_share(name: str, shares: Sequence[float], n: int) -> dict[str, object]:
    """The columns of the mean of several shares of the same n examples, with the interval of one of them."""
    mean = sum(shares) / len(shares)
    return with_interval(name, mean, wilson_interval(mean * n, n), n)


def check_claim(context: Context, claimed: float | None, results: Mapping[tuple[str, int], MembershipResult]) -> None:
    """Check that no attack shows a larger ε than training claims; raises `RunFailed` if one does."""
    if claimed is None:
        return
    (name, _), worst = max(results.items(), key=lambda item: item[1].epsilon_lower_bound)
    figure = f"at least {worst.epsilon_lower_bound:.3g} by {name}, {claimed:.3g} claimed"
    context.record.check("no attack shows a larger epsilon than claimed", worst.epsilon_lower_bound <= claimed, figure)
    if worst.epsilon_lower_bound > claimed:
        raise RunFailed(f"training is less private than it claims: epsilon is {figure}")


def check_alike(context: Context, networks: Sequence[nn.Module], pool: Pool) -> None:
    """Check that all networks were trained on as many examples, and that they are asked in eval mode."""
    sizes = sorted({len(spec.data.train) for spec in pool.specs})
    context.record.check("references have the victim's training size", len(sizes) == 1, f"{sizes} examples")
    training = sum(layer.training for network in networks for layer in network.modules())
    context.record.check("networks are asked in eval mode", training == 0, f"{training} layers are in training mode")
