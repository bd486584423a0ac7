"""Extraction of a linear classifier that returns labels only, by line searches at its decision boundaries.

Lowd and Meek 2005, "Adversarial Learning", KDD 2005, for two classes; Tramèr, Zhang, Juels, Reiter and Ristenpart 2016,
arXiv 1609.02943, section 6, for more.

Between two points with different labels, bisection finds a point of the boundary between two classes i and j, where
(wᵢ − wⱼ)·x + bᵢ − bⱼ = 0. Such points are first found between random pairs. The pairs of classes that meet most often
join the classes to a tree. For each pair in the tree, one boundary point is varied value by value, and the equations of
all variations determine the hyperplane of the pair up to a factor. The points of the other pairs determine the factors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trustml_cli.extraction.victim import Victim

HALVINGS = 20  # 2^-20 of a line's length is below the resolution of float32 pixels
LINES = 20  # first line searches for each class
SEARCH = 2 + HALVINGS  # queries of a line search: both ends, then the bisection
PER_VALUE = 28  # queries at most for each value of a hyperplane: one search, and another for a quarter of the values
REACHES = (0.25, 0.25, 0.06, 0.06)  # of a line to both sides of a boundary point, as shares of the line that found it
CHANGES = (0.5, 0.1, 0.1, 0.02)  # of one value, in pixel units, where the line reaches as far
ZERO = 1e-3  # singular values below this share of the largest count as 0


def queries_needed(values: int, classes: int) -> int:
    """The largest number of queries that `by_bisection` makes, for inputs of `values` values."""
    return LINES * classes * (1 + HALVINGS) + (classes - 1) * values * PER_VALUE


@dataclass(frozen=True)
class Borders:
    """Points at the boundaries between two classes each, and the directions of the lines that cross there.

    `classes` int64 [N, 2]; `points` [N, D]; `along` [N, D], from the first class to the second.
    """

    classes: Tensor
    points: Tensor
    along: Tensor

    def of(self, pair: tuple[int, int]) -> "Borders":
        """Those between the two classes of `pair`, with the lines in its direction."""
        there, back = ((self.classes == torch.tensor(order)).all(1) for order in (pair, pair[::-1]))
        points = torch.cat([self.points[there], self.points[back]])
        along = torch.cat([self.along[there], -self.along[back]])
        return Borders(torch.tensor(pair).expand(len(points), 2), points, along)


def by_bisection(victim: Victim, points: Tensor, random: torch.Generator) -> Tensor | None:
    """Weights and bias [K, D + 1] of a linear victim, up to a factor and to a row common to all classes.

    `points` [`LINES`·K, D] are where the first lines begin and end. A class that no line meets is never predicted. None
    where all points have the same label.
    """
    labels = ask(victim, points)
    if bool((labels == labels[0]).all()):
        return None
    partner = torch.multinomial((labels[:, None] != labels).double(), 1, generator=random)[:, 0]
    far = points[partner]
    found, beyond = bisect(victim, points, far, labels, labels[partner])
    borders = Borders(torch.stack([labels, beyond], 1), found, far - points)
    pairs = tree(borders.classes, victim.classes)
    planes = torch.stack([hyperplane(victim, borders.of(pair)) for pair in pairs])
    return joined(pairs, planes, borders, victim.classes)


def ask(victim: Victim, x: Tensor) -> Tensor:
    """The victim's labels of rows x [N, D]."""
    return victim.labels(x.reshape(-1, *victim.shape))


def bisect(victim: Victim, a: Tensor, b: Tensor, label_a: Tensor, label_b: Tensor) -> tuple[Tensor, Tensor]:
    """Where label_a ends on each line from a to b, [N, D], and the label that follows, [N]; the ends' labels differ."""
    for _ in range(HALVINGS):
        middle = (a + b) / 2
        label = ask(victim, middle)
        same = label == label_a
        a, b = torch.where(same[:, None], middle, a), torch.where(same[:, None], b, middle)
        label_b = torch.where(same, label_b, label)
    return (a + b) / 2, label_b


def tree(met: Tensor, classes: int) -> list[tuple[int, int]]:
    """Pairs (known, new) that join all classes that were met, [N, 2]; from pairs that were met most often."""
    counts = torch.zeros(classes, classes).index_put((met[:, 0], met[:, 1]), torch.tensor(1.0), accumulate=True)
    counts += counts.T.clone()
    inside = torch.zeros(classes, dtype=torch.bool)
    inside[counts.sum(1).argmax()] = True
    pairs: list[tuple[int, int]] = []
    while (open_ := counts * inside[:, None] * ~inside).any():
        known, new = divmod(int(open_.argmax()), classes)
        inside[new] = True
        pairs.append((known, new))
    return pairs


def hyperplane(victim: Victim, borders: Borders) -> Tensor:
    """Weights and bias [D + 1], with weights of length 1, of the difference of the two classes' logits."""
    first, second = borders.classes[0]
    # the points of a pair form a convex set, so their mean is one of them, and the farthest from a third class
    point, along = borders.points.mean(0), borders.along.mean(0)
    found = [point[None]]
    left, spent = torch.arange(len(point)), 0  # values whose line met no boundary of this pair so far
    for reach, change in zip(REACHES, CHANGES, strict=True):
        if not len(left) or spent + SEARCH * len(left) > PER_VALUE * len(point):
            break
        changed = torch.where(point < 0.5, point + change, point - change)[left, None]
        ends = ((point - reach * along).clamp(0, 1), (point + reach * along).clamp(0, 1))
        a, b = (end.repeat(len(left), 1).scatter(1, left[:, None], changed) for end in ends)
        crosses = (ask(victim, a) == first) & (ask(victim, b) == second)
        rows = crosses.nonzero()[:, 0]
        at, beyond = bisect(victim, a[rows], b[rows], first.expand(len(rows)), second.expand(len(rows)))
        spent += 2 * len(left) + HALVINGS * len(rows)
        found.append(at[beyond == second])
        left = left[~crosses.index_put((rows,), beyond == second)]
    rows = (torch.cat(found) - point).double()
    # on the hyperplane nothing changes; along the line the difference falls, by an arbitrary amount
    system, right = torch.cat([rows, along[None].double()]), torch.zeros(len(rows) + 1, 1, dtype=torch.double)
    right[-1] = -1
    weights = torch.linalg.lstsq(system, right, driver="gelsy").solution[:, 0]
    weights = weights / weights.norm()
    return torch.cat([weights, -(weights @ point.double())[None]])


def joined(pairs: list[tuple[int, int]], planes: Tensor, borders: Borders, classes: int) -> Tensor:
    """Weights and bias [K, D + 1], float64, from the hyperplanes [K − 1, D + 1] of the pairs of a tree.

    Each plane has a factor. At a point between two classes their logits are equal, which is an equation in the factors
    of the planes on the way from one class to the other. Where points leave factors open, they are as equal as the
    equations allow.
    """
    steps = torch.zeros(classes, len(pairs), dtype=torch.double)  # from the root of the tree to each class
    for number, (known, new) in enumerate(pairs):
        steps[new] = steps[known]
        steps[new, number] = -1  # the plane is the known class's logit minus the new one's
    values = borders.points.double() @ planes[:, :-1].T + planes[:, -1]
    equations = (steps[borders.classes[:, 0]] - steps[borders.classes[:, 1]]) * values
    _, sizes, directions = torch.linalg.svd(equations)
    known = int((sizes > ZERO * sizes[0]).sum())
    free = directions[min(known, len(pairs) - 1) :]  # all factors may be multiplied by one number
    model: Tensor = (steps * (free.sum(1) @ free)) @ planes
    outside = sorted(set(range(classes)) - {one for pair in pairs for one in pair})
    model[outside, -1] = -2 * model.abs().sum(1).max()
    return model
