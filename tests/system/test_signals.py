"""Signals that ask a process to end, in processes that are forked for it."""

import os
import pickle
import signal
from collections.abc import Callable

import pytest

from tests.processes import ended, forked
from trustml_cli.system import signals
from trustml_cli.system.signals import Terminated, exit_status, handle_termination, signals_ignored, words_for


def status_of(work: Callable[[], object]) -> int:
    """What a process that does `work` ends with: the status of the interrupt that it raises, 0 without any."""

    def interrupted() -> None:
        try:
            work()
        except KeyboardInterrupt as interrupt:
            os._exit(exit_status(interrupt))

    return ended(forked(interrupted))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_end_is_an_interrupt_with_a_status_of_its_own(number: signal.Signals, status: int) -> None:
    def told() -> None:
        signal.signal(number, signal.SIG_DFL)
        handle_termination()
        os.kill(os.getpid(), number)

    assert status_of(told) == status
    assert words_for(Terminated(number)) == f"terminated ({number.name})"
    assert exit_status(pickle.loads(pickle.dumps(Terminated(number)))) == status, "as it comes from another process"


def test_an_interrupt_of_the_user_is_still_130() -> None:
    assert (exit_status(KeyboardInterrupt()), words_for(KeyboardInterrupt())) == (130, "interrupted")


def test_the_same_signal_sent_twice_does_not_disturb_what_the_first_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        handle_termination()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Terminated:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert status_of(twice) == 7
    monkeypatch.setattr(signals, "AT_ONCE", 0.0)
    assert status_of(twice) == 143, "later it is another one"


def test_what_is_ignored_stays_ignored_and_last_words_are_not_cut_short() -> None:
    def ignored() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        handle_termination()
        os.kill(os.getpid(), signal.SIGHUP)
        with signals_ignored():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert status_of(ignored) == 143, "and after them it counts again"
