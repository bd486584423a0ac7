"""Evaluation of attributions: completeness, deletion and insertion curves, agreement between explainers."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from trustml_cli.explainers.explainer import Explainer, logit_of

BATCH = 50  # images explained per batch


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table: their `names` [P], the number of the column of each feature, int64 [D], and a row [D].

    The row holds the means of the training rows, which stand for columns that are not known.
    """

    names: tuple[str, ...]
    of_feature: Tensor
    mean: Tensor

    def add_up(self, by_feature: Tensor) -> Tensor:
        """Attributions of features [N, D] as those of columns [N, P]."""
        columns = by_feature.new_zeros(len(by_feature), len(self.names))
        return columns.index_add(1, self.of_feature.to(by_feature.device), by_feature)


@dataclass
class Explained:
    """One kind of attribution maps of N images, and their measurements; all on the CPU.

    `maps` are [N, C, H, W], or [N, P] for the columns of a table; `deletion` and `insertion` are the target's
    probability along each curve, [N, steps + 1].
    `gaps` are the completeness gaps in logits, [N, baselines]; None for a rate times input, since the rate has them
    already, and where nothing is meant to add up. `seconds` is the time that the maps took.
    """

    maps: Tensor
    deletion: Tensor
    insertion: Tensor
    gaps: Tensor | None
    seconds: float


def examine(
    name: str,
    explainer: Explainer,
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    baselines: Tensor,
    steps: int,
    columns: TableColumns | None = None,
) -> dict[str, Explained]:
    """Explain the logits of classes `target` [N] for images x [N, C, H, W], and evaluate the maps.

    The map that the explainer returns is evaluated under its `name`. A rate is also evaluated as NAME_x_input,
    multiplied by the image, which ranks pixels differently. Completeness gaps use each of an image's `baselines` [N, B,
    C, H, W], in float64 to exclude rounding errors, if the network allows it. Deletion and insertion take `steps`
    steps; the blank image of both is black (Petsiuk et al. blur for insertion, which leaves nothing to insert in images
    as small as these).

    For rows x [N, D] of a table with `columns`, contributions alone are evaluated, those of a column's features added
    up; they are counted from the mean row, which is also what columns are replaced by.
    """
    blank = blank_for(x, columns)
    maps, seconds = [], 0.0
    for image, number in zip(torch.split(x, BATCH), torch.split(target, BATCH), strict=True):
        start = perf_counter()
        if columns is None:
            maps.append(explainer(model, image, number))
        else:
            maps.append(explainer.from_background(model, image, number, blank.expand_as(image)))
        seconds += perf_counter() - start
        assert maps[-1].shape == image.shape
    attribution = torch.cat(maps) if columns is None else columns.add_up(torch.cat(maps))
    gaps = completeness_gaps(explainer, model, x, target, baselines) if explainer.additive else None
    found = {name: followed(model, x, target, attribution, steps, gaps, seconds, blank, columns)}
    if explainer.is_rate and columns is None:
        found[f"{name}_x_input"] = followed(model, x, target, attribution * x, steps, None, seconds, blank)
    return found


def in_random_order(
    model: nn.Module, x: Tensor, target: Tensor, steps: int, seed: int, columns: TableColumns | None = None
) -> Explained:
    """What `examine` measures for maps of random numbers, one for each example: the curves of an order by chance."""
    places = x.shape[1:] if columns is None else (len(columns.names),)
    maps = torch.rand(len(x), *places, generator=torch.Generator().manual_seed(seed)).to(x.device)
    return followed(model, x, target, maps, steps, None, 0.0, blank_for(x, columns), columns)


def blank_for(x: Tensor, columns: TableColumns | None) -> Tensor:
    """What pixels, or the features of columns, are replaced by."""
    return torch.zeros_like(x[0]) if columns is None else columns.mean.to(x)


def followed(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    maps: Tensor,
    steps: int,
    gaps: Tensor | None,
    seconds: float,
    blank: Tensor,
    columns: TableColumns | None = None,
) -> Explained:
    """Deletion and insertion curves for pixels, or columns, in the order of `maps`."""
    curves = []
    for image, number, values in zip(
        torch.split(x, BATCH), torch.split(target, BATCH), torch.split(maps, BATCH), strict=True
    ):
        nothing = blank.expand_as(image)
        there = replacement_curve(model, image, nothing, values, number, steps, columns)
        back = replacement_curve(model, nothing, image, values, number, steps, columns)
        curves.append((there.cpu(), back.cpu()))
    deletion, insertion = map(torch.cat, zip(*curves, strict=True))
    return Explained(maps.cpu(), deletion, insertion, gaps, seconds)


def completeness_gaps(explainer: Explainer, model: nn.Module, x: Tensor, target: Tensor, baselines: Tensor) -> Tensor:
    """`completeness_gap` from each of an image's `baselines` [N, B, C, H, W], in float64 on the CPU, [N, B].

    A network that fixes a precision itself, as in `torch.zeros(…)` or `x.float()`, is asked in float32.
    """
    exact, kind = deepcopy(model).cpu().double(), torch.float64
    try:
        with torch.no_grad():
            exact(x[:1].cpu().double())
    except Exception:  # whatever a layer raises
        exact, kind = deepcopy(model).cpu(), torch.float32
    batched = (torch.split(values.cpu(), BATCH) for values in (x.to(kind), target, baselines.to(kind)))
    return torch.cat(
        [
            torch.stack([completeness_gap(explainer, exact, image, number, one) for one in starts.unbind(1)], 1)
            for image, number, starts in zip(*batched, strict=True)
        ]
    )


def completeness_gap(explainer: Explainer, model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
    """|sum of contributions − (F(x) − F(baseline))| of each image, in logits, [N]; 0 for a complete explainer.

    Sundararajan et al. 2017, arXiv 1703.01365, section 3; F is the logit of class `target`.
    """
    total = explainer.contributions(model, x, target, baseline).flatten(1).sum(1)
    with torch.no_grad():
        return (total - (logit_of(model, x, target) - logit_of(model, baseline, target))).abs()


@torch.no_grad()
def replacement_curve(
    model: nn.Module,
    start: Tensor,
    end: Tensor,
    importance: Tensor,
    target: Tensor,
    steps: int,
    columns: TableColumns | None = None,
) -> Tensor:
    """Probability of class `target` while pixels of `start` are replaced by those of `end`, [N, steps + 1].

    Pixels are replaced in order of decreasing importance, all channels at once, an equal number in each of `steps`
    steps; `importance` [N, C, H, W] is summed over the channels. With `columns` it is [N, P], and all features of a
    column are replaced at once. Petsiuk, Das and Saenko 2018, arXiv 1806.07421:
    deletion goes from the image to a blank one, insertion the other way.
    """
    by_place = importance.sum(1).flatten(1) if columns is None else importance
    rank = by_place.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # 0 for the most important pixel
    shares = []
    for step in range(steps + 1):
        replaced = rank < round(step / steps * rank.shape[1])
        if columns is None:
            replaced = replaced.view(-1, 1, *start.shape[2:])
        else:
            replaced = replaced[:, columns.of_feature.to(replaced.device)]
        probabilities = model(torch.where(replaced, end, start)).softmax(1)
        shares.append(probabilities.gather(1, target[:, None])[:, 0])
    return torch.stack(shares, 1)


def area_under(curve: Tensor) -> Tensor:
    """Area under curves [N, steps + 1] over [0, 1] by the trapezoid rule, [N]."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation of two maps [N, …] for each image, [N]; nan where one of them is constant."""
    ranks = [torch.from_numpy(rankdata(values.flatten(1).cpu().numpy(), axis=1)) for values in (a, b)]
    left, right = (values - values.mean(1, keepdim=True) for values in ranks)
    correlation: Tensor = (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1))
    return correlation


def rank_correlations(maps: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The rank correlation of each pair of map kinds, for the images where neither map is constant, [≤ N]."""
    each = {one: {other: rank_correlation(maps[one], maps[other]) for other in maps} for one in maps}
    return {one: {other: values[values.isfinite()] for other, values in row.items()} for one, row in each.items()}
