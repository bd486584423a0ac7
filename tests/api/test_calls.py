"""The command line from Python: results as objects, errors as exceptions, and a process that is as it was before."""

import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import trustml_cli as trustml
from tests.helpers import Cli, leave_run
from trustml_cli.config.groups import register_resolvers

QUICK = ["task=fgsm", "model=logistic", "trainer=smoke", "task.check_images=0", "task.examples=2"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUSTML_CACHE_DIR", str(cache_dir))
    yield
    register_resolvers()  # of the tests that follow, which compose without a command


@pytest.fixture
def command_line(request: pytest.FixtureRequest) -> Cli:
    """The fixture `trustml`, whose name is that of the package here."""
    found: Cli = request.getfixturevalue("trustml")
    return found


def test_a_run_is_what_the_command_line_leaves(command_line: Cli, tmp_path: Path) -> None:
    """The same numbers as the command line; every part of the result comes from its directory."""
    run = trustml.run(*QUICK, "task.epsilon=[0,0.1]", "hydra.run.dir=mine")
    assert (run.folder, run.status) == (tmp_path / "mine", "completed")
    assert list(run.metrics.epsilon) == [0, 0.1]
    assert run.metrics.robust_accuracy[0] > run.metrics.robust_accuracy[1] + 0.2
    assert list(run.history.epoch) == [1, 2]
    assert {"robustness", "examples"} <= run.plots.keys()
    assert all(path.is_file() for path in (run.report, *run.plots.values()))
    assert run.verdict is not None
    assert run.verdict.startswith("not judged")
    assert list(run.checks.columns) == ["name", "passed", "figure"]
    assert len(run.checks) > 3
    assert run.config["task"]["epsilon"] == [0, 0.1]
    assert "fgsm, logistic on digits, completed" in repr(run)

    answer = command_line(*QUICK, "task.epsilon=[0,0.1]", "hydra.run.dir=theirs")
    assert answer.returncode == 0, answer.stderr
    theirs = trustml.load("theirs")
    own, other = (each.metrics.drop(columns="seconds") for each in (run, theirs))
    assert own.equals(other)


def test_a_notebook_shows_verdict_headline_and_pictures(tmp_path: Path) -> None:
    leave_run(tmp_path / "run", "task,dataset,model,seed,epsilon,robust_accuracy\nfgsm,digits,mlp,0,0.1,0.62\n",
              headline="robust_accuracy", verdict="not judged: <b>", error="it & stopped")  # fmt: skip
    (tmp_path / "run" / "plots").mkdir()
    (tmp_path / "run" / "plots" / "curve.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "run" / "report.html").touch()
    shown = trustml.load("run")._repr_html_()
    for part in ("robust accuracy", "62.0 %", "Not judged: &lt;b&gt;.", "it &amp; stopped", 'href="run/report.html"',
                 "data:image/png;base64,"):  # fmt: skip
        assert part in shown
    assert "<script" not in shown


def test_a_sweep_goes_on_after_a_failed_job_and_gives_both_tables(capfd: pytest.CaptureFixture[str]) -> None:
    sweep = trustml.sweep("task=train", "trainer=smoke", "model=logistic", "trainer.batch_size=64,0")
    assert list(sweep.table.status) == ["completed", "failed"]
    assert [run.status for run in sweep.runs] == ["completed", "failed"]
    assert sweep.summary.test_accuracy[0] == sweep.runs[0].metrics.test_accuracy[0]
    assert "trainer.batch_size" in sweep.runs[1].facts.error  # type: ignore[operator]
    assert sweep.report.is_file()
    assert sweep.plot.is_file()
    assert "trainer.batch_size" in capfd.readouterr().err
    shown = sweep._repr_html_()
    assert "test accuracy" in shown
    assert 'href="outputs/multirun/' in shown


def test_a_study_gives_its_figures(tmp_path: Path) -> None:
    (tmp_path / "mine" / "study").mkdir(parents=True)
    (tmp_path / "mine" / "study" / "short.yaml").write_text(
        "# @package study\n# a question\ntitle: short\nitems:\n  one:\n    question: how accurate?\n"
        "    run: [task=train, model=logistic, trainer=smoke]\n"
        "    figures: {accuracy: {metric: test_accuracy, at_least: 1, required: true}}\n"
    )
    study = trustml.study("short", "--config-dir", "mine")
    assert list(study.figures.verdict) == ["does not hold"]
    assert not study.holds
    assert "does not hold" in study._repr_html_()


BAD = [
    (["task=fgms"], "task=fgms: no such task; did you mean 'fgsm'?"),
    ([*QUICK, "task.epsilon=-1"], "task.epsilon: must be a number of at least 0, got -1"),
    ([*QUICK, "epsilonn=1"], "epsilonn=1: no such key"),
    (["task=train", "--bogus"], "--bogus: no such flag"),
    (["-m", "seed=0,1"], "run: is for one job; use sweep"),
    (["--cfg", "job"], "--cfg job: runs nothing"),
    (["--version"], "--version: runs nothing"),
    (["task=train", "seed=0,1"], "seed=0,1: several values"),
]


@pytest.mark.parametrize(("words", "text"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_line(words: list[str], text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(trustml.InputError) as caught:
        trustml.run(*words)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # a notebook would show it too
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("words", [["task=fgms"], ["-m", "model=glob(zzz*)"], [*QUICK, "task.epsilon=-1,-2"]])
def test_a_sweep_of_which_nothing_ran_is_an_error(words: list[str]) -> None:
    with pytest.raises(trustml.InputError, match=r"fgms|zzz|task\.epsilon"):
        trustml.sweep(*words)


def test_a_directory_is_taken_once_and_a_failed_run_names_its_log(tmp_path: Path) -> None:
    lost = ["task=train", "model=mlp", "trainer=smoke", "trainer.optimizer=sgd", "trainer.lr=1e30", "hydra.run.dir=a"]
    with pytest.raises(trustml.RunFailed, match=r"trainer\.lr; see .*a/trustml\.log$") as caught:
        trustml.run(*lost)
    assert isinstance(caught.value.__cause__, trustml.RunFailed)  # with the traceback
    with pytest.raises(trustml.InputError, match="holds a run already"):
        trustml.run(*lost)
    run = trustml.load("a")
    assert (run.status, run.facts.exit_code) == ("failed", 1)
    with pytest.raises(trustml.InputError, match="holds no run"):
        trustml.load(tmp_path)


def state() -> dict[str, Any]:
    """All that a notebook has of its process and wants to keep."""
    root, known = logging.getLogger(), vars(logging)
    return {
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "warnings": warnings.filters[:],
        "logging": (root.handlers[:], root.level, logging.raiseExceptions, len(known["_handlerList"])),
        "environment": dict(os.environ),
        "process": (Path.cwd(), sys.argv[:], sys.path[:], torch.get_num_threads()),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "matplotlib": (dict(matplotlib.rcParams), matplotlib.get_backend()),
        "omegaconf": OmegaConf.create({"home": "${oc.env:HOME}", "mine": "${mine:2}"}).home,
        "hydra": GlobalHydra.instance(),
    }


@pytest.mark.parametrize("words", [["task=train", "model=logistic", "trainer=smoke"], ["task=fgms"]])
def test_the_process_is_as_it_was_before(words: list[str], tmp_path: Path) -> None:
    """Also after an error, and within a running event loop."""
    OmegaConf.clear_resolvers()  # oc.env is OmegaConf's own again
    OmegaConf.register_new_resolver("mine", lambda number: number, replace=True)
    handler = logging.FileHandler(tmp_path / "own.log", mode="w")
    logging.getLogger("own").addHandler(handler)
    with matplotlib.rc_context({"figure.facecolor": "black", "text.parse_math": True}):
        random.random(), np.random.rand(), torch.rand(1)
        before = state()

        async def cell() -> None:
            with pytest.raises(trustml.InputError) if words == ["task=fgms"] else warnings.catch_warnings():
                trustml.run(*words)

        asyncio.run(cell())
        assert state() == before
    logging.getLogger("own").error("still written")
    handler.close()
    assert (tmp_path / "own.log").read_text() == "still written\n"


def test_importing_the_package_imports_neither_torch_nor_hydra() -> None:
    code = (
        "import json, sys; import trustml_cli as trustml\n"
        "before = [name in sys.modules for name in ('torch', 'hydra', 'pandas', 'matplotlib')]\n"
        "print(json.dumps([before, sorted(dir(trustml)), trustml.InputError.__name__]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, names, error = json.loads(answer.stdout)
    assert not any(before)
    assert {"run", "sweep", "study", "load"} <= set(names)
    assert error == "InputError"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        trustml.runn  # noqa: B018
