"""What an attack does to a model, image by image, and what must hold for the numbers to be believed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Access, Attack, Norm, input_gradient, per_image
from trustml_cli.attacks.attack_view import AttackView, choose_attack_view, same_logits
from trustml_cli.attacks.geometry import lengths
from trustml_cli.models.inference import logits_of, predicted_classes
from trustml_cli.system.hardware import BatchSplitter

TOLERANCE = 1e-6  # float32 rounds x + ε·d: a perturbation may be over its budget by as much
ROUNDING = 2**-24  # and each of its values by as much


@dataclass(frozen=True)
class Predictions:
    """What a network says of images: classes and their softmax probabilities, both [N], on the CPU.

    The class is −1 and the probability 0 where it has no answer.
    """

    predicted: Tensor
    confidence: Tensor

    def where_none(self, other: "Predictions") -> "Predictions":
        """The same, with what `other` says of images to which there is no answer."""
        answered = self.predicted >= 0
        return Predictions(
            self.predicted.where(answered, other.predicted), self.confidence.where(answered, other.confidence)
        )


@dataclass
class EpsilonResult:
    """The images of one epsilon after the attack: answers and sizes of the perturbation, each of shape [N]."""

    epsilon: float
    answers: Predictions
    transferred: dict[str, Predictions]
    """What other networks say of the same images, by name."""
    sizes: dict[Norm, Tensor]
    seconds: float
    queries: float
    """Forward passes for each image, on average."""
    gradients: float
    """Backward passes for each image, on average."""
    unanswered: Tensor
    """Whether the attack made an image that has no answer or is none; the original counts in its place. Bool [N]."""
    broken_gradients: float
    """Of the gradients for each image, how many had values that are NaN or infinite, on average."""
    examples: Tensor
    """The first few adversarial images themselves, [n, C, H, W]."""


@dataclass
class RobustnessCurve:
    """A model under an attack at several epsilons; the tensors of the images before it have shape [N]."""

    labels: Tensor
    clean: Predictions
    clean_transferred: dict[str, Predictions]
    zero_gradient: Tensor | None
    """Whether the loss does not depend on the image at all; None for an attack that takes no gradients."""
    examples: Tensor
    """The first few images before the attack, [n, C, H, W]."""
    attacked: list[EpsilonResult] = field(default_factory=list)
    batch_size: int | None = None
    """The size to which batches were cut because memory ran out; None where it did not."""
    asked: AttackView | None = None
    """Whom the attack asked."""

    @property
    def initially_right(self) -> Tensor:
        """Whether the model is right before the attack, bool [N]."""
        return self.clean.predicted == self.labels


class QueryCounter(nn.Module):
    """The same network, counting how many images it is asked about and how many gradients are taken."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.queries, self.gradients = 0, 0
        self.broken: Tensor | int = 0
        """Gradients by an image with values that are NaN or infinite; on the device, where they are not waited for."""

    def forward(self, x: Tensor) -> Tensor:
        self.queries += len(x)
        logits: Tensor = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
            if x.requires_grad:
                x.register_hook(self._look)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.gradients += len(gradient)

    def _look(self, gradient: Tensor) -> None:
        self.broken = self.broken + (~gradient.flatten(1).isfinite().all(1)).sum()


def attack_curve(
    model: nn.Module,
    attack: Attack,
    batches: Iterable[tuple[Tensor, Tensor]],
    epsilons: Sequence[float],
    keep: int,
    transfer_models: Mapping[str, nn.Module] | None = None,
    asked: AttackView | None = None,
) -> RobustnessCurve:
    """Attack every batch at every epsilon; `keep` images are kept as examples. All results are on the CPU.

    The attack asks the network of `asked`, or the one that `choose_attack_view` finds with the first batch; the
    predictions are those of `model` itself. Where a copy predicts another class than the model for an adversarial
    image, that batch and those that follow are attacked through the model. The networks `transfer_models` are shown the
    same images. Where memory runs out the batch is halved, and those that follow are cut to that size.

    `seconds`, `queries` and `gradients` are what it took to make the images of an epsilon, and `seconds` to judge them.
    Where the attack shares work between epsilons, its time is counted with the first of them, and each has all queries
    and gradients up to its own.
    """
    parts: list[RobustnessCurve] = []

    def attacked(x: Tensor, y: Tensor) -> RobustnessCurve:
        nonlocal asked
        asked = asked or (
            choose_attack_view(model, x, y) if any(epsilons) else AttackView(model, "nobody: no epsilon is above 0")
        )
        left = max(keep - sum(len(part.examples) for part in parts), 0)
        curve, x_adv = attack_batch(model, asked.network, attack, x, y, epsilons, left, transfer_models or {})
        if asked.network is not model and not says_the_same(model, asked.network, x_adv):
            asked = AttackView(model, "the network itself: the copy differs on images under attack")
            curve, _ = attack_batch(model, model, attack, x, y, epsilons, left, transfer_models or {})
        return curve

    halving = BatchSplitter()
    for part in halving.over(batches, attacked):
        parts.append(part)  # one by one, for `attacked` counts them
    curve = concatenate(parts)
    curve.batch_size, curve.asked = halving.size, asked
    return curve


def attack_batch(
    model: nn.Module,
    attack_view: nn.Module,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    epsilons: Sequence[float],
    keep: int,
    transfer_models: Mapping[str, nn.Module],
) -> tuple[RobustnessCurve, Tensor]:
    """`attack_curve` of one batch, and the images of the last epsilon.

    The attack asks `attack_view`, and `model` judges what comes of it.
    """

    def others(images: Tensor) -> dict[str, Predictions]:
        return {name: predict_images(network, images) for name, network in transfer_models.items()}

    clean, clean_transferred, zero = predict_images(model, x), others(x), None
    if any(epsilons) and attack.access in (Access.white_box, Access.transfer):
        zero = (input_gradient(model, x, y).flatten(1) == 0).all(1).cpu()
    curve = RobustnessCurve(y.cpu(), clean, clean_transferred, zero, x[:keep].cpu().clone())
    counted = QueryCounter(attack_view)
    x_adv, start = x, perf_counter()
    for epsilon, x_adv in zip(epsilons, attacked_images(attack, counted, x, y, epsilons), strict=True):
        assert x_adv.shape == x.shape
        x_adv = x_adv.detach()
        answers = predict_images(model, x_adv) if epsilon else clean
        unanswered = ~x_adv.flatten(1).isfinite().all(1).cpu() | (answers.predicted < 0)
        if unanswered.any():
            x_adv = torch.where(per_image(unanswered.to(x.device), x), x, x_adv)
            answers = Predictions(answers.predicted.where(~unanswered, -1), answers.confidence).where_none(clean)
        seconds = perf_counter() - start
        curve.attacked.append(
            EpsilonResult(
                epsilon,
                answers,
                {name: said.where_none(clean_transferred[name]) for name, said in others(x_adv).items()},
                sizes(x_adv - x),
                seconds,
                queries=counted.queries / len(x),
                gradients=counted.gradients / len(x),
                unanswered=unanswered,
                broken_gradients=int(counted.broken) / len(x),
                examples=x_adv[:keep].cpu().clone(),
            )
        )
        if not attack.shares_work:
            counted.queries, counted.gradients, counted.broken = 0, 0, 0
        start = perf_counter()
    return curve, x_adv


def attacked_images(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float]
) -> Iterator[Tensor]:
    """The attack's images for one epsilon after the other; at 0 they are x, and no attack is run."""
    budgets = [epsilon for epsilon in epsilons if epsilon]
    found = attack.curve(model, x, y, budgets) if budgets else iter(())
    for epsilon in epsilons:
        yield next(found) if epsilon else x


def concatenate(parts: Sequence[RobustnessCurve]) -> RobustnessCurve:
    """The curves of several batches as one."""
    count = torch.tensor([len(part.labels) for part in parts]).double()

    def mean(values: Iterator[float]) -> float:
        return float((torch.tensor(list(values)).double() * count).sum() / count.sum())

    def together(answers: Sequence[Predictions]) -> Predictions:
        predicted, confidence = zip(*((one.predicted, one.confidence) for one in answers), strict=True)
        return Predictions(torch.cat(predicted), torch.cat(confidence))

    def by_name(answers: Sequence[dict[str, Predictions]]) -> dict[str, Predictions]:
        return {name: together([one[name] for one in answers]) for name in answers[0]}

    zero = [part.zero_gradient for part in parts if part.zero_gradient is not None]
    return RobustnessCurve(
        torch.cat([part.labels for part in parts]),
        together([part.clean for part in parts]),
        by_name([part.clean_transferred for part in parts]),
        torch.cat(zero) if zero else None,
        torch.cat([part.examples for part in parts]),
        [
            replace(
                of_epsilon[0],
                answers=together([one.answers for one in of_epsilon]),
                transferred=by_name([one.transferred for one in of_epsilon]),
                sizes={norm: torch.cat([one.sizes[norm] for one in of_epsilon]) for norm in Norm},
                seconds=sum(one.seconds for one in of_epsilon),
                queries=mean(one.queries for one in of_epsilon),
                gradients=mean(one.gradients for one in of_epsilon),
                unanswered=torch.cat([one.unanswered for one in of_epsilon]),
                broken_gradients=mean(one.broken_gradients for one in of_epsilon),
                examples=torch.cat([one.examples for one in of_epsilon]),
            )
            for of_epsilon in zip(*(part.attacked for part in parts), strict=True)
        ],
    )


@torch.no_grad()
def says_the_same(model: nn.Module, copy: nn.Module, x: Tensor) -> bool:
    """Whether both give images x the same logits but for rounding."""
    both = BatchSplitter().over([(x, x)], lambda part, _: torch.stack([logits_of(model, part), logits_of(copy, part)]))
    return same_logits(*torch.cat(list(both), 1))


@torch.no_grad()
def predict_images(model: nn.Module, x: Tensor) -> Predictions:
    """The classes that the model sees. Where memory runs out, it is asked about fewer images at a time."""
    logits = torch.cat(list(BatchSplitter().over([(x, x)], lambda part, _: logits_of(model, part))))
    return Predictions(predicted_classes(logits).cpu(), logits.softmax(1).amax(1).nan_to_num().cpu())


def sizes(perturbation: Tensor) -> dict[Norm, Tensor]:
    """The size of each image's perturbation [N, …] in every norm, each [N] and on the CPU."""
    flat = perturbation.detach().flatten(1)
    size = flat.abs()
    return {
        Norm.linf: size.amax(1).cpu(),
        Norm.l2: lengths(flat).cpu(),
        Norm.l1: size.sum(1).cpu(),
        Norm.l0: (flat != 0).sum(1).float().cpu(),
    }


def within_budget(x_adv: Tensor, x: Tensor, epsilon: float, norm: Norm) -> bool:
    """Whether every image is in [0, 1] and within `epsilon` of its original, but for what float32 rounds."""
    values = x[0].numel()
    rounding = {Norm.linf: 1, Norm.l2: values**0.5, Norm.l1: values, Norm.l0: 0}[norm] * ROUNDING
    in_range = bool((x_adv >= 0).all() and (x_adv <= 1).all())
    return in_range and bool((sizes(x_adv - x)[norm] <= epsilon + TOLERANCE * max(1.0, epsilon) + rounding).all())
