"""Termination signals, raised as an interrupt like that of Ctrl-C, with an exit status of their own."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType

TO_END = (signal.SIGTERM, signal.SIGHUP)  # sent by SLURM, Kubernetes and `timeout`; by a closed terminal
AT_ONCE = 5.0  # seconds within which an identical second signal is ignored: `timeout` sends two


class Terminated(KeyboardInterrupt):
    """A signal asked the process to end; the argument is its number."""


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """The exit status for this interrupt by shell convention: 128 plus the signal number."""
    return 128 + (int(interrupt.args[0]) if isinstance(interrupt, Terminated) else signal.SIGINT)


def words_for(interrupt: KeyboardInterrupt) -> str:
    """The text with which a run reports this interrupt."""
    return (
        f"terminated ({signal.Signals(interrupt.args[0]).name})" if isinstance(interrupt, Terminated) else "interrupted"
    )


def handle_termination(whatever_was_set: bool = False) -> None:
    """Make termination signals raise `Terminated`, so that files are completed and no partial ones remain.

    Signals that are ignored (as under `nohup`) or handled already are left alone; `whatever_was_set` replaces any
    handler of SIGTERM.
    """
    if current_thread() is not main_thread():  # only the main thread can receive signals
        return
    for number in TO_END:
        if signal.getsignal(number) is signal.SIG_DFL or (whatever_was_set and number == signal.SIGTERM):
            signal.signal(number, raise_terminated)


_last = -AT_ONCE


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """Raise `Terminated`, unless the same signal comes twice: the second would interrupt the clean-up."""
    global _last
    before, _last = _last, monotonic()
    if _last - before >= AT_ONCE:
        raise Terminated(number)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore termination signals inside: for the final writes of a run."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (*TO_END, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
