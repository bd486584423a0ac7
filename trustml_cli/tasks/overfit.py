"""task=overfit: functions of more and more capacity, fitted to few points of a curve, and their errors elsewhere."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
import torch
from numpy.polynomial import Legendre
from numpy.typing import NDArray

from trustml_cli.metrics.columns import Columns, conditions, headline, logged, lower
from trustml_cli.metrics.intervals import average
from trustml_cli.plots.overfit import errors_over_capacity, fitted_functions
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context

FRESH = 200  # points at which each error is measured
GRID = 400  # points of a drawn function

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]


class Kind(Enum):
    """A family of functions, ordered by capacity."""

    polynomial = "polynomial"
    """Polynomials, fitted by least squares; the capacity is the degree."""
    network = "network"
    """Networks with one hidden layer of tanh units, fitted by L-BFGS; the capacity is its width."""


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """Fit each kind of `function`, at each capacity, to `few` and `many` even points in [−1, 1], and to uneven ones.

    Uneven points are `few`, nine in ten of them left of the middle. Values are sin(1.5πx) and normal noise of deviation
    `noise`. Errors are means over `draws` of the noise, in [−1, 1] and up to `outside` beyond it on either side.
    """

    columns: ClassVar[Columns] = (
        *conditions("function", "points", "capacity"),
        *logged(lower("train_error")),
        *headline(lower("validation_error")),
        *logged(lower("outside_error")),
    )
    identity: ClassVar[Mapping[str, str]] = {"dataset": "curve", "model": "function"}
    """What its rows name in place of the groups that it does not use."""

    function: list[Kind]
    degree: list[int]
    width: list[int]
    few: int
    many: int
    noise: float
    outside: float
    draws: int

    def __post_init__(self) -> None:
        require(self, "few", "draws", at_least=2)
        require(self, "noise", at_least=0)
        require(self, "outside", above=0)
        if self.many <= self.few:
            raise ValueError(f"many: must be more than few ({self.few}), got {self.many}")
        for name, least in (("degree", 0), ("width", 1)):
            if not getattr(self, name) or min(getattr(self, name)) < least:
                raise ValueError(f"{name}: needs numbers of at least {least}, got {getattr(self, name)}")
        if not self.function:
            raise ValueError("function: needs at least one of polynomial, network")

    def __call__(self, context: Context) -> None:
        """Write one row for each function, set of points and capacity, then the plots."""
        places = self.places()
        shown: dict[tuple[str, str], dict[int, Floats]] = {}
        grid = np.linspace(-1 - self.outside, 1 + self.outside, GRID)
        jobs = [(kind, name) for kind in self.function for name in places]
        data = {name: list(self.samples(x, context.seed)) for name, x in places.items()}
        for kind, name in Progress(jobs, desc="fitting", unit="set"):
            shown[kind.value, name] = {}
            for capacity in sorted({*(self.degree if kind is Kind.polynomial else self.width)}):
                fits = [fitted(kind, capacity, places[name], y, number) for number, y in enumerate(data[name])]
                condition = {"function": kind.value, "points": name, "capacity": capacity}
                context.record.metrics(condition, **self.errors(fits, places[name], data[name], context.seed))
                shown[kind.value, name][capacity] = fits[0](grid)
        context.record.plot("capacity", errors_over_capacity(context.record.rows, self.noise, self.draws))
        points = {name: (x, data[name][0]) for name, x in places.items()}
        for kind in self.function:
            own = {name: shown[kind.value, name] for name in places}
            context.record.plot(f"fits_{kind.value}", fitted_functions(kind.value, own, points, grid, curve(grid)))

    def places(self) -> dict[str, Floats]:
        """The places of the training points, by the name of their set."""
        left = round(0.9 * self.few)
        uneven = np.concatenate([np.linspace(-1, 0, left, endpoint=False), np.linspace(0.9, 1, self.few - left)])
        even = {name: np.linspace(-1, 1, count) for name, count in (("few", self.few), ("many", self.many))}
        return {**even, "uneven": uneven}

    def samples(self, x: Floats, seed: int) -> Iterator[Floats]:
        """The values at the places x, for each draw of the noise."""
        random = np.random.default_rng(seed)
        for _ in range(self.draws):
            yield curve(x) + self.noise * random.standard_normal(len(x))

    def errors(self, fits: list[Function], x: Floats, values: list[Floats], seed: int) -> dict[str, object]:
        """The mean squared errors at the training points, at others in [−1, 1] and outside, with intervals."""
        random = np.random.default_rng([seed, 1])
        inside = random.uniform(-1, 1, FRESH)
        beyond = random.uniform(1, 1 + self.outside, FRESH) * random.choice([-1, 1], FRESH)
        found: dict[str, list[float]] = {"train_error": [], "validation_error": [], "outside_error": []}
        for fit, y in zip(fits, values, strict=True):
            found["train_error"].append(squared(fit(x), y))
            for name, places in (("validation_error", inside), ("outside_error", beyond)):
                noisy = curve(places) + self.noise * random.standard_normal(FRESH)
                found[name].append(squared(fit(places), noisy))
        columns = (average(name, torch.tensor(each, dtype=torch.float64)) for name, each in found.items())
        return {name: value for part in columns for name, value in part.items()}


def curve(x: Floats) -> Floats:
    """The function behind the points."""
    values: Floats = np.sin(1.5 * np.pi * x)
    return values


def squared(predicted: Floats, wanted: Floats) -> float:
    """The mean squared difference."""
    return float(np.mean((predicted - wanted) ** 2))


def fitted(kind: Kind, capacity: int, x: Floats, y: Floats, seed: int) -> Function:
    """The function of this kind and capacity that fits values y at places x; `seed` starts a network's weights."""
    with warnings.catch_warnings(action="ignore"):  # of points that determine no unique fit, or of one not converged
        if kind is Kind.polynomial:
            polynomial: Function = Legendre.fit(x, y, capacity, domain=[-1, 1])
            return polynomial
        from sklearn.neural_network import MLPRegressor

        network = MLPRegressor(
            hidden_layer_sizes=(capacity,),
            activation="tanh",
            solver="lbfgs",
            alpha=0.0,
            max_iter=500,
            random_state=seed,
        )
        network.fit(x[:, None], y)
    return lambda places: np.asarray(network.predict(places[:, None]), dtype=np.float64)
