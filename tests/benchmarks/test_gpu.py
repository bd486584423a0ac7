"""The script of measurements on a GPU: its parts on a CPU, and what it does with parts that fail or hang."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as script
from benchmarks.gpu import checks, speed
from benchmarks.gpu.__main__ import CHECKED, TIMED, Part, run_all
from benchmarks.gpu.checks import compared, memory, proportions
from benchmarks.gpu.rows import Row, figures
from benchmarks.gpu.setup import Setup
from trustml_cli.data.dataset import Dataset, InMemory

WORDS = {
    "good": "print('said')",
    "bad": "raise ValueError('what is wrong')",
    "hangs": "import time; time.sleep(600)",
    "last": "print('said too')",
}


def part_of(name: str, limit: float) -> Part:
    return Part(name, limit, f"The part {name}")


def leave(work: Path, name: str, *lines: str) -> None:
    (work / f"{name}.jsonl").write_text("".join(lines))


def test_a_part_that_fails_or_hangs_costs_itself_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "LEAST", 0.1)
    row = json.dumps({"what": "a figure", "value": 1234.5, "unit": "s", "n": 3, "note": "a|b", "holds": True})
    leave(tmp_path, "good", row + "\n")
    leave(tmp_path, "hangs", row + "\n", row[:20])  # cut off while it was written
    choose = f"import sys; exec({WORDS!r}[sys.argv[2]])"  # the words after the command are --part NAME --limit SECONDS
    parts = [part_of(name, 0.3 if name == "hangs" else 60) for name in WORDS]
    outcomes = run_all(parts[:3], parts[3:], [sys.executable, "-c", choose], tmp_path, tmp_path / "out", seconds=60)
    ended = {outcome.part.name: outcome.ended for outcome in outcomes}
    assert ended["good"] == ended["last"] == "completed"
    assert ended["bad"] == "failed with exit status 1: ValueError: what is wrong"
    assert ended["hangs"] == "stopped at its limit of 0 s"
    assert [outcome.good for outcome in outcomes] == [True, False, False, True]
    assert [len(outcome.rows) for outcome in outcomes] == [1, 0, 1, 0]
    assert {"said", "said too", f"[hangs] {ended['hangs']} after 0 s"} <= set(capfd.readouterr().out.splitlines())
    page = (tmp_path / "out" / "results.md").read_text()
    assert "| a figure | 1,234.5 s | 3 | yes | a/b |" in page
    assert "what is wrong" in (tmp_path / "out" / "log.txt").read_text()
    assert [each["ended"] for each in json.loads((tmp_path / "out" / "results.json").read_text())] == list(
        ended.values()
    )


def test_no_part_begins_when_no_time_is_left(tmp_path: Path) -> None:
    (outcome,) = run_all([part_of("good", 60)], [], ["no such command"], tmp_path, tmp_path, seconds=1)
    assert (outcome.ended, outcome.good) == ("not started: no time was left", False)


def test_a_check_that_does_not_hold_is_seen(tmp_path: Path) -> None:
    leave(tmp_path, "good", json.dumps({"what": "a figure", "holds": False}) + "\n")
    (outcome,) = run_all([part_of("good", 60)], [], [sys.executable, "-c", ""], tmp_path, tmp_path, seconds=60)
    assert (outcome.ended, outcome.good) == ("completed", False)
    assert str(outcome.rows[0]) == "a figure, AND MUST NOT BE"


@pytest.mark.parametrize(("fails", "status"), [(False, 0), (True, 1)])
def test_figures_are_kept_as_they_come(
    fails: bool, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def card(setup: Setup) -> Iterator[Row]:
        yield Row("first", 1.0, "s")
        if fails:
            raise ValueError("later")
        yield Row("second", setup.limit, "s")

    monkeypatch.setattr(speed, "card", card)
    words = ["--part", "card", "--work", str(tmp_path), "--data", str(tmp_path), "--limit", "7", "--device", "cpu"]
    assert script.main(words) == status
    assert [row.value for row in figures(tmp_path, "card")] == ([1.0] if fails else [1.0, 7.0])
    told = capsys.readouterr()
    assert told.out.startswith("[card] first: 1 s\n")
    assert ("ValueError: later" in told.err) is fails


def test_every_part_has_a_function_and_may_not_take_half_of_the_time() -> None:
    for part in (*TIMED, *CHECKED):
        assert hasattr(speed, part.name) != hasattr(checks, part.name), part
        assert part.limit < script.SECONDS / 2


def test_an_unknown_part_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--only", "card,nothing"])
    assert "--only: no part nothing" in capsys.readouterr().err


def test_batches_are_halved_in_a_small_memory(tmp_path: Path) -> None:
    rows = {row.what: row for row in memory(Setup(tmp_path, tmp_path, "cpu", 60, tiny=True))}
    assert rows["batch size after halving"].value == 3  # 12 and 6 do not fit into a memory for 4
    assert all(row.holds for row in rows.values())


def test_memory_that_is_never_short_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "Small", lambda model, most: model)
    rows = {row.what: row for row in memory(Setup(tmp_path, tmp_path, "cpu", 60, tiny=True))}
    assert rows["batch size after halving"].holds is False


def metrics(folder: Path, name: str, accuracy: float, low: float, high: float) -> Path:
    run = folder / name
    run.mkdir()
    names = "accuracy,accuracy_ci_low,accuracy_ci_high,accuracy_n,mean_l0,mean_l0_ci_low,mean_l0_ci_high,seconds"
    (run / "metrics.csv").write_text(f"{names}\n{accuracy},{low},{high},100,45,44,46,{accuracy}\n")
    return run


@pytest.mark.parametrize(
    ("other", "low", "high", "within", "holds"),
    [
        (0.70, 0.6, 0.75, None, None),  # shown, not judged: the intervals overlap
        (0.60, 0.5, 0.69, None, None),
        (0.79, 0.7, 0.9, 0.002, True),  # one image of 100
        (0.78, 0.7, 0.9, 0.002, False),
    ],
)
def test_proportions_on_two_devices_are_compared(
    other: float, low: float, high: float, within: float | None, holds: bool | None, tmp_path: Path
) -> None:
    pair = metrics(tmp_path, "cpu", 0.80, 0.7, 0.9), metrics(tmp_path, "gpu", other, low, high)
    (row,) = compared({"fgsm": pair}, within)
    assert (row.value, row.n, row.holds) == (pytest.approx(100 * (0.8 - other)), 1, holds)
    apart = holds is False or (holds is None and high < 0.7)
    assert (f"accuracy 0.8000 and {other:.4f}" in row.note) is apart


def test_values_that_one_device_has_not_are_not_compared() -> None:
    here = {"accuracy": "0.8", "accuracy_ci_low": "0.7", "accuracy_ci_high": "0.9", "accuracy_n": "10"}
    assert not list(proportions(here, {**here, "accuracy": ""}))
    assert len(list(proportions(here, here))) == 1


def linear() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10)).requires_grad_(False)


def test_attacks_are_held_against_peers_on_the_same_images(tmp_path: Path) -> None:
    setup, model = Setup(tmp_path, tmp_path, "cpu", 60, tiny=True), linear()
    x = torch.rand(8, 3, 8, 8)
    y = model(x).argmax(1)
    rows = [
        *speed.pgd_against_peers(setup, model, model, x, y),
        *speed.standard_against_peer(setup, model, model, x, y),
    ]
    found = {row.what: row for row in rows}
    assert found["PGD-10: share of equal pixels, a bare loop"].holds
    assert found["standard: ours"].holds
    for what in ("PGD-10: ours", "PGD-10 in TF32: a bare loop", "standard: ours"):
        assert found[what].value > 0  # type: ignore[operator]
    assert not torch.backends.cudnn.allow_tf32


def test_images_that_are_not_those_of_a_peer_are_seen(tmp_path: Path) -> None:
    setup, model = Setup(tmp_path, tmp_path, "cpu", 60, tiny=True), linear()
    x = torch.rand(8, 3, 8, 8)
    rows = speed.pgd_against_peers(setup, model, linear(), x, model(x).argmax(1))
    assert {row.holds for row in rows if row.what == "PGD-10: share of equal pixels, a bare loop"} == {False}


def test_airbench_is_asked_for_its_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Loader:
        def __init__(self, path: str, train: bool, batch_size: int, **options: Any) -> None:
            kept = torch.load(Path(path) / f"{'train' if train else 'test'}.pt")
            asked.append((train, tuple(kept["images"].shape), kept["images"].dtype, len(kept["classes"])))

    peer = SimpleNamespace(
        CifarLoader=Loader,
        warmup94=lambda loader: asked.append("warm"),
        train94=lambda loader, run, verbose: asked.append((run, verbose)) or run,
        evaluate=lambda model, loader, tta_level: 0.9 + model / 100,
        __spec__=object(),
    )
    split = InMemory(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4))
    data = Dataset(split, split, ("a", "b"), fingerprint="", source="")
    monkeypatch.setitem(sys.modules, "airbench", peer)
    monkeypatch.setattr(Setup, "images", lambda self: data)
    monkeypatch.chdir(tmp_path)
    fast = [
        {"what": "test accuracy", "value": 0.93, "n": 5},
        {"what": "seconds of training without compiling", "value": 2.0},
    ]
    leave(tmp_path, "fast", *(json.dumps(row) + "\n" for row in fast))
    rows = {row.what: row for row in speed.airbench(Setup(tmp_path, tmp_path, "cpu", 60, tiny=False))}
    assert asked[:2] == [(True, (4, 32, 32, 3), torch.uint8, 2), (False, (4, 32, 32, 3), torch.uint8, 2)]
    assert asked[2:] == ["warm", *((run, False) for run in range(5))]
    assert rows["test accuracy"].value == pytest.approx(0.92)
    assert rows["ours minus theirs, points of accuracy"].value == pytest.approx(1.0)
    assert "ours against theirs, seconds without compiling" in rows


@pytest.mark.faults
def test_every_part_runs_on_a_cpu_in_its_tiny_form(tmp_path: Path) -> None:
    assert script.main(["--tiny", "--device", "cpu", "--out", str(tmp_path / "out"), "--data", str(tmp_path)]) == 0
    outcomes = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {outcome["part"]["name"] for outcome in outcomes} == {part.name for part in (*TIMED, *CHECKED)}
    assert all(outcome["rows"] for outcome in outcomes)
    values = {row["what"]: row["value"] for outcome in outcomes for row in outcome["rows"]}
    assert values["operations for an image in training"] == pytest.approx(6 * 0.556, rel=0.01)  # 0.56 GMACs forward
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["log.txt", "results.json", "results.md"]
