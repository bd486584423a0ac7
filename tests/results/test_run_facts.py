"""run.json from strangers: every fact has its type, or the run is one line that says what is wrong."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Cli, leave_run
from trustml_cli.results.run_facts import read_facts
from trustml_cli.system.printable import CONTROLS

ODD: list[tuple[str, str]] = [
    ('"conditions": 5', "conditions: must be a list of texts, got 5"),
    ('"conditions": [["a"]]', "conditions: must be a list of texts"),
    ('"command": [["a"]]', "command: must be a list of texts"),
    ('"command": []', "command: must be a list of words"),
    ('"status": {}', "status: must be a text"),
    ('"status": "fine"', "status: must be one of running, completed, failed, got 'fine'"),
    ('"started": 5', "started: must be a text, got 5"),
    ('"seed": [1]', r"seed: must be a number or a text, got [1]"),
    ('"task": [1]', "task: must be a text"),
    ('"headline": []', "headline: must be a text, got []"),
    ('"better": {"a": 1}', "better: a: must be a text, got 1"),
    ('"choices": 3', "choices: must be a mapping, got 3"),
    ('"error": {"a": 1}', "error: must be a text"),
    ('"changed": {"a": 1}', "changed: a: must have a default and a value, got 1"),
    ('"checks": [5]', "checks: must each have a name"),
    ('"checks": [{"name": "a", "passed": 2, "figure": "b"}]', "checks: must each have a name"),
    ('"data": {"notes": 5}', "data.notes: must be a list of texts, got 5"),
    ('"libraries": {"torch": 2}', "libraries: torch: must be a text, got 2"),
    ('"peak_memory_mb": {"cpu": "x"}', "peak_memory_mb: cpu: must be a number, got 'x'"),
    ('"seconds": "x"', "seconds: must be a number, got 'x'"),
    ('"seconds": true', "seconds: must be a number, got True"),
    ('"seconds": NaN', "seconds: must be a number, got nan"),
    ('"seconds": 1' + "0" * 400, "seconds: must be a number, got 1000"),
    ('"seconds": 1' + "0" * 5000, "Exceeds the limit"),
    ('"exit_code": 256', "exit_code: must be 0 to 255, got 256"),
    ('"x": ' + "[" * 60 + "]" * 60, "is nested too deep"),
    ('"x": ' + "[" * 100_000 + "]" * 100_000, "is nested too deep"),
    ('"x": "' + "y" * 100_001 + '"', "'x': has 100,001 characters; 100,000 at most are read"),
]


def leave_odd(folder: Path, text: str) -> None:
    """A run beside whose facts, or in whose place, this text stands in run.json."""
    leave_run(folder, "epsilon,robust_accuracy\n0.1,0.5\n", "seed: 0\n", headline="robust_accuracy")
    name = text.partition(":")[0].strip('"')
    known = {key: value for key, value in json.loads((folder / "run.json").read_text()).items() if key != name}
    (folder / "run.json").write_text(f"{json.dumps(known)[:-1]}, {text}}}")


@pytest.mark.parametrize(("text", "message"), ODD, ids=[text[:30] for text, _ in ODD])
def test_a_fact_of_another_type_makes_the_run_unreadable(text: str, message: str, tmp_path: Path) -> None:
    leave_odd(tmp_path / "run", text)
    facts = read_facts(tmp_path / "run")
    assert facts.status == "unreadable"
    assert facts.error is not None
    assert facts.error.startswith(f"run.json: {message}")
    assert len(facts.error) < 200
    assert facts.task is None


def test_all_facts_are_read(tmp_path: Path) -> None:
    written: dict[str, Any] = {
        "status": "failed", "exit_code": 1, "error": "the loss became nan", "task": "train", "dataset": "digits",
        "model": "mlp", "seed": 3, "started": "2026-01-01", "seconds": 1.5, "device": "cpu", "headline": "accuracy",
        "verdict": "trustworthy", "trustml": "0.1", "python": "3.11", "git_commit": "abc",
        "command": ["trustml", "a=1"], "conditions": ["epsilon"], "better": {"accuracy": "higher"},
        "choices": {"attack": "pgd"},
        "libraries": {"torch": "2.6"}, "peak_memory_mb": {"cpu": 10.5}, "changed": {"a": {"default": 1, "value": [2]}},
        "checks": [{"name": "a", "passed": None, "figure": "b"}], "threads": 2, "job": 0,
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps({**written, "tracker": None, "data": {"notes": ["lossy"]}}))
    facts = read_facts(tmp_path)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in facts.known.items()}
    assert plain == {**written, "data": {"notes": ["lossy"]}}
    assert facts.notes == ("lossy",)
    assert (facts.get("threads"), facts.get("seed"), facts.get("nope")) == (2, 3, None)


def test_one_odd_run_hides_no_other(trustml: Cli, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    leave_run(outputs / "good", "epsilon,robust_accuracy\n0.1,0.5\n", "seed: 0\n", headline="robust_accuracy")
    for number, (text, _) in enumerate(ODD):
        leave_odd(outputs / f"odd{number}", text)
    os.mkfifo(outputs / "good" / "pipe")
    for name in ("run.json", "metrics.csv", "config.yaml"):
        leave_run(outputs / f"pipe_{name}", "a,headline\n1,2\n", "seed: 0\n", headline="a")
        (outputs / f"pipe_{name}" / name).unlink()
        os.mkfifo(outputs / f"pipe_{name}" / name)
    leave_run(outputs / "device")
    (outputs / "device" / "run.json").unlink()
    (outputs / "device" / "run.json").symlink_to("/dev/zero")
    leave_run(outputs / "gone")
    (outputs / "gone" / "run.json").unlink()
    (outputs / "gone" / "run.json").symlink_to("nowhere")
    (outputs / "odd0" / "metrics.csv").write_text("a,b\n1,2,3,4\n")
    answer = trustml("runs", "--sort", "seed")
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = answer.stdout.splitlines()
    assert len(lines) == 1 + 1 + len(ODD) + 5
    assert sum("unreadable" in line for line in lines) == len(ODD) + 3
    assert any("robust_accuracy 50.0 %" in line and line.endswith("outputs/good") for line in lines)
    answer = trustml("report", "outputs")
    assert (answer.returncode, answer.stderr) == (0, "")
    page = (tmp_path / "comparison.html").read_text()
    assert page.count('class="status unreadable"') == len(ODD) + 3
    assert "conditions: must be a list of texts, got 5" in page
    for words in (["status=unreadable"], ["seed=0"], ["task.epsilon=0.1"], ["status=[[a"]):
        answer = trustml("runs", *words)
        assert (answer.returncode, answer.stderr.count("\n")) in ((0, 0), (2, 1)), answer


def test_pages_take_nothing_along_that_a_link_leads_to(trustml: Cli, tmp_path: Path) -> None:
    leave_run(tmp_path / "outputs" / "run", "epsilon,f\n0.1,0.5\n", "seed: 0\n", headline="f")
    (tmp_path / "secret").write_bytes(b"\x89PNG\r\n\x1a\npassword: SECRET")
    run = tmp_path / "outputs" / "run"
    (run / "plots").mkdir()
    (run / "plots" / "a.png").symlink_to(tmp_path / "secret")
    os.mkfifo(run / "plots" / "b.png")
    (run / "plots" / "c.png").write_text("no picture")
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to(tmp_path / "secret")
    assert trustml("report", "outputs").returncode == 0
    page = (tmp_path / "comparison.html").read_text()
    assert "SECRET" not in page
    assert "data:image" not in page


STEERING = [
    "a\x1b[2J\x1b]0;title\x07",
    "\x00\x7f",
    "\x9b31m",
    "x\u202ey\u2066",
    "\u2028\u2029\u0085",
    "\t\r\n",
    "\ud800",
]


@pytest.mark.parametrize("name", STEERING, ids=[ascii(name) for name in STEERING])
def test_control_characters_reach_neither_terminal_nor_page_nor_table(name: str, trustml: Cli, tmp_path: Path) -> None:
    run = tmp_path / "outputs" / ("run" + name.replace("\x00", "").encode("utf-8", "surrogatepass").hex())
    facts: dict[str, Any] = {"task": name, "model": name, "error": name, "verdict": name, "device": name,
             "command": ["trustml", name], "conditions": [name], "changed": {name: {"default": name, "value": name}},
             "checks": [{"name": name, "passed": True, "figure": name}], "choices": {name: name}}  # fmt: skip
    leave_run(run, "", f"key: {json.dumps(name)}\n", **facts)
    table = f'"{name}",value\n"{name}",0.5\n'.encode("utf-8", "surrogatepass")
    (run / "metrics.csv").write_bytes(table)
    leave_run(run.with_name("other"), "", "key: 1\n")
    answers = [trustml("runs"), trustml("runs", "--csv", "-"), trustml("report", "outputs")]
    assert [answer.returncode for answer in answers] == [0, 0, 0]
    page = (tmp_path / "comparison.html").read_text().replace("\t", "")  # which does no harm there
    for text in (*(answer.stdout + answer.stderr for answer in answers), page):
        assert not CONTROLS.search(text.replace("\n", "")), ascii(text)
    assert "\\x" in answers[0].stdout or "\\u" in answers[0].stdout
