"""Times that can be compared although the machine is not still."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import process_time


@dataclass(frozen=True)
class Ratio:
    """How long one thing takes against another: medians of processor seconds over `n` runs of each, in turn."""

    what: str
    against: str
    ours: float
    theirs: float
    n: int

    @property
    def value(self) -> float:
        """Below 1 ours is faster."""
        return self.ours / self.theirs


def ratios(what: str, ours: Callable[[], object], peers: Mapping[str, Callable[[], object]], n: int) -> list[Ratio]:
    """`ours` against each of the peers; all run once before any of them is timed."""
    runs = {"": ours, **peers}
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(n):
        for name, run in runs.items():
            start = process_time()
            run()
            seconds[name].append(process_time() - start)
    return [Ratio(what, name, median(seconds[""]), median(seconds[name]), n) for name in peers]
