"""Run an attack on a model over images and epsilons, and measure predictions, sizes of perturbations and costs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from time import perf_counter

import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Access, Attack, Norm, per_image
from trustml_cli.attacks.attack_view import AttackView, choose_attack_view, same_logits
from trustml_cli.attacks.geometry import lengths
from trustml_cli.attacks.robustness_curve import EpsilonResult, Predictions, RobustnessCurve, concatenate
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.models.inference import logits_of
from trustml_cli.system.hardware import BatchSplitter

TOLERANCE = 1e-6  # tolerated excess of a perturbation over its budget, for the rounding of x + ε·d in float32
ROUNDING = 2**-24  # tolerated rounding error of each value


class QueryCounter(nn.Module):
    """Wraps a network and counts the images in forward and in backward passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.queries, self.gradients = 0, 0
        self.broken: Tensor | int = 0
        """Number of input gradients with NaN or infinity; a tensor on the device, which avoids synchronisation."""

    def forward(self, x: Tensor) -> Tensor:
        self.queries += len(x)
        logits: Tensor = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
            if x.requires_grad:
                x.register_hook(self._look)
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
    clean: Predictions | None = None,
) -> RobustnessCurve:
    """Attack every batch at every epsilon; `keep` images are kept as examples. All results are on the CPU.

    `clean` are the predictions for the images of all batches, if an earlier curve has them. Then they are not computed
    again, nor is `zero_gradient`.

    The attack queries the network of `asked`, or the one that `choose_attack_view` chooses on the first batch. The
    predictions are those of `model`. If the logits of a copy differ from the model's for the adversarial images of the
    last epsilon, this batch and all later ones are attacked through the model. `transfer_models` are evaluated on the
    same images. If memory runs out, the batch is halved, and later batches are split to that size.

    `queries` and `gradients` count the passes of the attack at an epsilon; `seconds` is its time plus that of the
    evaluation by `model`. If the attack shares work between epsilons, its time counts for the first of them, and
    queries and gradients are cumulative.
    """
    parts: list[RobustnessCurve] = []

    def attacked(x: Tensor, y: Tensor) -> RobustnessCurve:
        nonlocal asked
        asked = asked or (
            choose_attack_view(model, x, y) if any(epsilons) else AttackView(model, "nobody: no epsilon is above 0")
        )
        left = max(keep - sum(len(part.examples) for part in parts), 0)
        start = sum(len(part.labels) for part in parts)
        known = clean[start : start + len(x)] if clean else None

        def through(view: nn.Module) -> tuple[RobustnessCurve, Tensor, Tensor]:
            return attack_batch(model, view, attack, x, y, epsilons, left, transfer_models or {}, known)

        curve, x_adv, logits = through(asked.network)
        if asked.network is not model and asked.replaceable and not gives_logits(asked.network, x_adv, logits):
            asked = AttackView(model, "the network itself: the copy differs on images under attack")
            curve, _, _ = through(model)
        return curve

    halving = BatchSplitter()
    for part in halving.over(batches, attacked):
        parts.append(part)  # not a comprehension: `attacked` reads `parts`
    curve = concatenate(parts)
    curve.batch_size, curve.asked = halving.size, asked
    passes = asked.passes if asked else 1
    for one in curve.attacked:
        one.queries, one.gradients = passes * one.queries, passes * one.gradients
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
    clean: Predictions | None = None,
) -> tuple[RobustnessCurve, Tensor, Tensor]:
    """`attack_curve` of one batch, and the adversarial images of the last epsilon with the logits of `model`.

    The attack queries `attack_view`; `model` classifies the adversarial images.
    """

    def others(images: Tensor) -> dict[str, Predictions]:
        return {name: predict_images(network, images) for name, network in transfer_models.items()}

    at_rest = cache(lambda: all_logits(model, x))
    clean, clean_transferred, zero, known = clean or Predictions.of(at_rest()), others(x), None, clean is not None
    if any(epsilons) and attack.access in (Access.white_box, Access.transfer) and not known:
        zero = (attack.loss_gradient(attack_view, x, y).flatten(1) == 0).all(1).cpu()
    curve = RobustnessCurve(y.cpu(), clean, clean_transferred, zero, x[:keep].cpu().clone())
    counted = QueryCounter(attack_view)
    x_adv, start, found = x, perf_counter(), None
    if isinstance(attack, SmallestPerturbation) and any(epsilons):
        found = attack.smallest(counted, x, y)
        curve.distance = distances(model, attack, found, x, y)
    for epsilon, x_adv in zip(epsilons, attacked_images(attack, counted, x, y, epsilons, found), strict=True):
        assert x_adv.shape == x.shape
        x_adv = x_adv.detach()
        logits = all_logits(model, x_adv) if epsilon else at_rest()
        answers = Predictions.of(logits) if epsilon else clean
        unanswered = ~x_adv.flatten(1).isfinite().all(1).cpu() | (answers.predicted < 0)
        if unanswered.any():
            x_adv = torch.where(per_image(unanswered.to(x.device), x), x, x_adv)
            logits = torch.where(unanswered[:, None].to(x.device), at_rest(), logits)
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
    return curve, x_adv, logits


def attacked_images(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, epsilons: Sequence[float], found: Tensor | None
) -> Iterator[Tensor]:
    """Yield the adversarial images for each epsilon in turn; for epsilon 0 they are x, without an attack.

    `found` are the results of a search for the smallest perturbation, whatever the epsilon.
    """
    budgets = [epsilon for epsilon in epsilons if epsilon]
    images: Iterator[Tensor] = iter(())
    if found is not None and isinstance(attack, SmallestPerturbation):
        images = (attack.within(found, x, epsilon) for epsilon in budgets)
    elif budgets:
        images = attack.curve(model, x, y, budgets)
    for epsilon in epsilons:
        yield next(images) if epsilon else x


def distances(model: nn.Module, attack: Attack, found: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The size in the attack's norm of x's perturbations to `found`, [N]; ∞ where `model` does not reach the goal."""
    said = predict_images(model, found).predicted
    reached = (said >= 0) & (said != y.cpu()) if attack.target is None else said == int(attack.target)
    return sizes(found - x)[attack.norm].where(reached, torch.inf)


def gives_logits(copy: nn.Module, x: Tensor, logits: Tensor) -> bool:
    """Whether `copy` gives these logits [N, K] for images x up to rounding."""
    return same_logits(logits, all_logits(copy, x))


@torch.no_grad()
def all_logits(model: nn.Module, x: Tensor) -> Tensor:
    """The model's logits [N, K] for images x; if memory runs out, the batch is split."""
    return torch.cat(list(BatchSplitter().over([(x, x)], lambda part, _: logits_of(model, part))))


def predict_images(model: nn.Module, x: Tensor) -> Predictions:
    """The model's predictions for images x; if memory runs out, the batch is split."""
    return Predictions.of(all_logits(model, x))


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
    """Whether every image is in [0, 1] and within `epsilon` of its original, up to float32 rounding."""
    values = x[0].numel()
    rounding = {Norm.linf: 1, Norm.l2: values**0.5, Norm.l1: values, Norm.l0: 0}[norm] * ROUNDING
    in_range = bool((x_adv >= 0).all() and (x_adv <= 1).all())
    return in_range and bool((sizes(x_adv - x)[norm] <= epsilon + TOLERANCE * max(1.0, epsilon) + rounding).all())
