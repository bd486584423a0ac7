"""Signals that ask a process to end: an interrupt like that of Ctrl-C, with an exit status of its own."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType

TO_END = (signal.SIGTERM, signal.SIGHUP)  # of SLURM, Kubernetes and `timeout`; of a terminal that is closed
AT_ONCE = 5.0  # seconds in which a second signal is the first one sent twice, as `timeout` does


class Terminated(KeyboardInterrupt):
    """A signal asked the process to end; its number is the argument."""


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """The exit status of a process that ends for this interrupt, as shells have it: 128 and the signal's number."""
    return 128 + (int(interrupt.args[0]) if isinstance(interrupt, Terminated) else signal.SIGINT)


def words_for(interrupt: KeyboardInterrupt) -> str:
    """What a run says of how it ended."""
    return (
        f"terminated ({signal.Signals(interrupt.args[0]).name})" if isinstance(interrupt, Terminated) else "interrupted"
    )


def handle_termination(whatever_was_set: bool = False) -> None:
    """Have such a signal raise `Terminated`, so that files are finished and nothing half is left.

    Not where it is ignored, as after `nohup`, or heard already, unless that is to be replaced.
    """
    if current_thread() is not main_thread():  # only that one hears of signals
        return
    for number in TO_END:
        if signal.getsignal(number) is signal.SIG_DFL or (whatever_was_set and number == signal.SIGTERM):
            signal.signal(number, raise_terminated)


_last = -AT_ONCE


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """Raise it, but not for the same signal sent twice: that would cut short what the first has begun to tidy up."""
    global _last
    before, _last = _last, monotonic()
    if _last - before >= AT_ONCE:
        raise Terminated(number)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """No signal interrupts what is inside: the last words of a run."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (*TO_END, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
