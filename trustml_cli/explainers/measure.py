"""How good explanations are: whether they add up, whether the model follows them, whether they agree."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, logit_of

BATCH = 50  # images that are explained at once


@dataclass
class Explained:
    """One method's explanations of N images, and what is measured of each; all on the CPU.

    `attribution` is what the explainer returns, `contributions` what each pixel adds on the way from black, both
    [N, C, H, W]. `gaps` are completeness gaps in logits, [N, baselines]; `deletion` and `insertion` the curves of
    the target's probability, [N, steps + 1]. `seconds` is the time that the attribution took.
    """

    attribution: Tensor
    contributions: Tensor
    gaps: Tensor
    deletion: Tensor
    insertion: Tensor
    seconds: float


def examine(
    explainer: Explainer, model: nn.Module, x: Tensor, target: Tensor, baselines: Tensor, steps: int
) -> Explained:
    """Explain the logits of classes `target` [N] for images x [N, C, H, W], and measure the explanations.

    Gaps are taken from each of an image's `baselines` [N, B, C, H, W], in float64, for rounding is not the explainer's
    fault. Deletion and insertion go by contributions, in so many `steps`; black is the blank image of both (Petsiuk et
    al. blur for insertion, which leaves nothing to insert in images as small as these).
    """
    exact = deepcopy(model).cpu().double()
    parts = []
    seconds = 0.0
    batched = (torch.split(values, BATCH) for values in (x, target, baselines))
    for image, number, starts in zip(*batched, strict=True):
        start = perf_counter()
        attribution = explainer(model, image, number).cpu()
        seconds += perf_counter() - start
        assert attribution.shape == image.shape
        black = torch.zeros_like(image)
        contributions = explainer.contributions(model, image, number, black)
        precise = image.cpu().double()
        gap = [
            completeness_gap(explainer, exact, precise, number.cpu(), baseline.cpu().double())
            for baseline in starts.unbind(1)
        ]
        deletion = replacement_curve(model, image, black, contributions, number, steps)
        insertion = replacement_curve(model, black, image, contributions, number, steps)
        parts.append((attribution, contributions.cpu(), torch.stack(gap, 1), deletion.cpu(), insertion.cpu()))
    attribution, contributions, gaps, deletion, insertion = map(torch.cat, zip(*parts, strict=True))
    return Explained(attribution, contributions, gaps, deletion, insertion, seconds)


def completeness_gap(explainer: Explainer, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
    """|sum of contributions − (F(x) − F(baseline))| of each image, in logits, [N]. 0 where nothing is left out.

    Sundararajan et al. 2017, arXiv 1703.01365, section 3; F is the logit of class `target`.
    """
    total = explainer.contributions(model, x, target, baseline).flatten(1).sum(1)
    with torch.no_grad():
        return (total - (logit_of(model, x, target) - logit_of(model, baseline, target))).abs()


@torch.no_grad()
def replacement_curve(
    model: nn.Module, start: Tensor, end: Tensor, importance: Tensor, target: Tensor, steps: int
) -> Tensor:
    """Probability of class `target` while pixels of `start` are replaced by those of `end`, [N, steps + 1].

    The most important pixels go first, all channels of a place at once, an equal number in each of `steps` steps;
    `importance` [N, C, H, W] is summed over the channels. Petsiuk, Das and Saenko 2018, arXiv 1806.07421: deletion
    goes from the image to a blank one, insertion the other way.
    """
    by_place = importance.sum(1).flatten(1)
    rank = by_place.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # 0 for the most important place
    shares = []
    for step in range(steps + 1):
        replaced = (rank < round(step / steps * rank.shape[1])).view(-1, 1, *start.shape[2:])
        probabilities = model(torch.where(replaced, end, start)).softmax(1)
        shares.append(probabilities.gather(1, target[:, None])[:, 0])
    return torch.stack(shares, 1)


def area_under(curve: Tensor) -> Tensor:
    """Area under curves [N, steps + 1] over [0, 1] by the trapezoid rule, [N]."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation of two maps [N, …] image by image, [N]; nan where one of them is the same everywhere."""
    ranks = [torch.from_numpy(rankdata(values.flatten(1).cpu().numpy(), axis=1)) for values in (a, b)]
    left, right = (values - values.mean(1, keepdim=True) for values in ranks)
    correlation: Tensor = (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1))
    return correlation


def rank_correlations(maps: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Mean rank correlation of each two methods' maps, over the images where both say something."""
    return {one: {other: rank_correlation(maps[one], maps[other]).nanmean().item() for other in maps} for one in maps}
