"""How far long work is: in words, and in lines that come without a terminal."""

import threading
from threading import Event

import pytest

from trustml_cli.system import progress
from trustml_cli.system.progress import Progress, duration, line_of_progress, lines_of_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which stands still unless it is set."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_work_says_how_far_it_is_and_how_long_it_takes(clock: list[float]) -> None:
    with Progress[None](total=400, desc="training") as bar:
        assert str(bar) == "training: 0 of 400 steps"
        for _ in range(100):
            bar.update()
        clock[0] = 30.0
        bar.tell(epoch="2 of 5", loss="0.123", accuracy="95.1%")
        assert str(bar) == "training: 100 of 400 steps, epoch 2 of 5, loss 0.123, accuracy 95.1%, 1 min 30 s left"
        assert not bar.stale
        clock[0] = 33.0
        assert bar.stale


def test_the_items_come_through_and_are_counted() -> None:
    items = Progress({"a": 1, "b": 2}.items(), desc="explaining", unit="method")
    seen = [(name, str(items)) for name, _ in items]
    assert [name for name, _ in seen] == ["a", "b"]
    assert seen[0][1] == "explaining: 0 of 2 methods"
    assert seen[1][1].startswith("explaining: 1 of 2 methods, ")
    endless = Progress((number for number in range(3)), desc="reading", unit="image")
    assert list(endless) == [0, 1, 2]
    assert str(endless) == "reading: 3 images"


def test_a_line_tells_all_that_is_being_done_unless_a_bar_shows_it(clock: list[float]) -> None:
    clock[0] = 25.0
    assert line_of_progress("fgsm", begun=5.0) == "fgsm: at work for 20 s"
    with Progress[None](total=8, desc="stealing", unit="theft"), Progress[None](total=2, desc="training") as bar:
        assert line_of_progress("steal", begun=5.0) == "stealing: 0 of 8 thefts; training: 0 of 2 steps"
        bar.has_bar = True  # as on a terminal
        assert line_of_progress("steal", begun=5.0) is None
    assert line_of_progress("steal", begun=5.0) == "steal: at work for 20 s"


def test_lines_come_while_the_work_goes_on_and_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.001)
    lines: list[str] = []
    told = Event()

    def tell(line: str) -> None:
        lines.append(line)
        if lines.count("stealing: 0 of 8 thefts") == 3:  # lines may come before the work has begun
            told.set()

    with lines_of_progress("fgsm", tell), Progress[None](total=8, desc="stealing", unit="theft"):
        assert told.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
