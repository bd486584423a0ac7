"""Progress of long work: a bar on a terminal, and a line at least every ten seconds where there is none."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

T = TypeVar("T")

EVERY = 10.0  # seconds between two lines
STALE = 2.0  # seconds after which the figures of a bar are worth a new look

_standing: "list[Progress[Any]]" = []
"""What is being done, the outermost first."""


class Progress(Generic[T]):
    """How far some work is: the items of an iterable, or what `update` counts, of `total` (None: unknown).

    On a terminal it is a bar of tqdm. `lines_of_progress` reads it elsewhere.
    """

    def __init__(
        self, iterable: Iterable[T] | None = None, *, desc: str, unit: str = "step", total: int | None = None
    ) -> None:
        self.iterable = iterable
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self.desc, self.unit, self.done = desc, unit, 0
        self.figures: dict[str, str] = {}
        self.begun = self.looked = monotonic()
        self.bar = tqdm(total=self.total, desc=desc, unit=unit, disable=None)
        self.has_bar = not self.bar.disable
        _standing.append(self)

    def __iter__(self) -> Iterator[T]:
        with self:
            for one in self.iterable or ():
                yield one
                self.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()
        if self in _standing:
            _standing.remove(self)

    def update(self) -> None:
        """Count one more item."""
        self.done += 1
        self.bar.update()

    def tell(self, **figures: str) -> None:
        """Show figures, such as the loss, beside how far it is."""
        self.figures |= figures
        self.looked = monotonic()
        self.bar.set_postfix(self.figures, refresh=False)

    @property
    def stale(self) -> bool:
        """Whether the last `tell` was long ago: figures on a GPU cost a synchronization."""
        return monotonic() - self.looked > STALE

    def __str__(self) -> str:
        of = f" of {self.total:,}" if self.total is not None else ""
        units = f"{self.unit}es" if self.unit.endswith(("ch", "ss")) else f"{self.unit}s"
        parts = [f"{self.done:,}{of} {units}", *(f"{name} {value}" for name, value in self.figures.items())]
        if self.total and 0 < self.done < self.total:
            parts.append(f"{duration((monotonic() - self.begun) / self.done * (self.total - self.done))} left")
        return f"{self.desc}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Seconds in words: '40 s', '3 min 20 s', '2 h 5 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def line_of_progress(name: str, begun: float) -> str | None:
    """How far all is that is being done, or else for how long `name` has been at work; None if a bar shows it."""
    at_work = _standing[:]
    if at_work and at_work[-1].has_bar:
        return None
    return "; ".join(map(str, at_work)) or f"{name}: at work for {duration(monotonic() - begun)}"


@contextmanager
def lines_of_progress(name: str, tell: Callable[[str], None] = log.info) -> Iterator[None]:
    """Have `tell` called with a `line_of_progress` every `EVERY` seconds while the work inside goes on."""
    begun, ended = monotonic(), Event()

    def watch() -> None:
        while not ended.wait(EVERY):
            if (line := line_of_progress(name, begun)) is not None:
                tell(line)

    watcher = Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        _standing.clear()
