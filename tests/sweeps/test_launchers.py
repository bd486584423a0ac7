"""Sweeps in several processes: what a sweep promises holds for them too."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
from hydra.core.utils import JobStatus
from hydra.errors import MissingConfigException

from tests.configs import choices, composed
from tests.helpers import Cli
from tests.processes import HANGS, gone, noted, wait_until
from trustml_cli.config.groups import share_of_cores
from trustml_cli.config.messages import explain
from trustml_cli.sweeps.launchers import Call, RayOrLost, SeparateProcesses
from trustml_cli.sweeps.resume import resumed_words
from trustml_cli.system.errors import InputError

MINE = """
import os, signal
from pathlib import Path
import torch


def network(num_classes):
    Path(f"process_{os.getpid()}").write_text(str(torch.get_num_threads()))
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))


def killed(num_classes):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One in which mine.py can be imported and nobody has said how many threads there shall be."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def only_sweep(tmp_path: Path) -> Path:
    (sweep,) = (tmp_path / "outputs" / "multirun").iterdir()
    return sweep


@pytest.mark.parametrize(
    ("launcher", "epsilons"),
    [
        pytest.param("joblib", [0.1, 0.2], marks=pytest.mark.faults),
        pytest.param("local_submitit", [0.1], marks=pytest.mark.faults),
        pytest.param("ray", [0.1], marks=pytest.mark.faults),
    ],
)
def test_jobs_in_processes_are_kept_apart_and_added_up(
    launcher: str,
    epsilons: list[float],
    trustml: Cli,
    trustml_process: Cli,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    pytest.importorskip({"local_submitit": "submitit"}.get(launcher, launcher))
    sweep = ["task=fgsm", "trainer=smoke", "model=custom", "model.factory=mine:network,mine:absent,mine:killed"]
    sweep += [f"task.epsilon={','.join(map(str, epsilons))}", "task.check_images=0"]
    environment["TRUSTML_CACHE_DIR"] = str(tmp_path / "cache")
    run = trustml_process if launcher == "ray" else trustml  # Ray goes on until its process ends
    answer = run("-m", f"launcher={launcher}", *sweep, env=environment)
    each = len(epsilons)
    assert answer.returncode == 1, answer.stderr
    assert f"{each} of {3 * each} jobs completed" in answer.stdout
    errors = "".join(line for line in answer.stderr.splitlines(keepends=True) if line.startswith("trustml: "))
    assert errors.count("trustml: killed:") == errors.count("trustml: failed:") == each
    assert "Traceback" not in answer.stderr
    folder = only_sweep(tmp_path)
    table = pandas.read_csv(folder / "sweep.csv")
    status = {factory: set(jobs.status) for factory, jobs in table.groupby("model.factory")}
    assert status == {"mine\\:network": {"completed"}, "mine\\:killed": {"killed"}, "mine\\:absent": {"failed"}}
    assert "launcher" not in table
    assert pandas.read_csv(folder / "summary.csv").epsilon.tolist() == epsilons
    assert (folder / "sweep.png").exists()
    logs = [path.read_text() for path in folder.glob("*/trustml.log")]
    assert sum("training model" in log for log in logs if "mine\\:network" in log) == 1
    begun = {line.partition(":")[0] for log in logs for line in log.splitlines() if line.startswith("job ")}
    assert begun == {f"job {number} of {3 * each}" for number in range(1, 3 * each + 1)}
    threads = "1" if launcher == "ray" else str(share_of_cores(2))  # Ray gives each job a core
    for process in tmp_path.glob("process_*"):
        assert process.read_text() == threads


@pytest.mark.faults
def test_an_interrupt_ends_the_processes_too_and_adds_up_what_there_is(
    environment: dict[str, str], cache_dir: Path, tmp_path: Path
) -> None:
    words = ["-m", "launcher=joblib", "task=train", "model=custom", "model.factory=mine:network"]
    process = subprocess.Popen(
        [sys.executable, "-m", "trustml_cli", *words, "trainer.epochs=100000", "seed=0,1,2"],
        cwd=tmp_path, env={**os.environ, **environment, "TRUSTML_CACHE_DIR": str(cache_dir)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None or len(list(tmp_path.rglob("history.csv"))) == 2)  # both train
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=HANGS)[0]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "0 of 3 jobs completed" in output
    workers = [int(path.name.partition("_")[2]) for path in tmp_path.glob("process_*")]
    assert len(workers) == 2
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


# The processes themselves, with functions that need no trustml


def call(folder: Path, number: int, **what: Any) -> Call:
    return noted, (folder, number), what  # type: ignore[return-value]


@pytest.mark.e2e
@pytest.mark.parametrize("said", [None, "3"])
def test_a_killed_job_takes_no_other_along_and_all_share_the_cores(
    said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    jobs = [
        call(tmp_path, 0, after=[1], then="die"),
        call(tmp_path, 1, after=[0], then="outlive"),
        call(tmp_path, 2, after=[3]),  # at the same time, so that there are two processes again
        call(tmp_path, 3, after=[2]),
    ]
    first, *others = SeparateProcesses(2)(jobs)
    assert (first.status, first.return_value) == (JobStatus.COMPLETED, 1), "of a job that says nothing itself"
    threads = said or str(share_of_cores(2))
    assert others == [(number, threads) for number in (1, 2, 3)]
    processes = {path.read_text() for path in tmp_path.glob("begun_*")}
    assert len(processes) == 3, "two, and one in the place of the one that was killed"
    assert all(gone(int(process)) for process in processes)


@pytest.mark.e2e
def test_an_interrupt_begins_no_job_more_and_ends_those_that_run(tmp_path: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: len(list(tmp_path.glob("begun_*"))) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            SeparateProcesses(2)([call(tmp_path, number, then="last") for number in range(3)])
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    begun = {path.name: int(path.read_text()) for path in tmp_path.glob("begun_*")}
    assert sorted(begun) == ["begun_0", "begun_1"]
    assert not list(tmp_path.glob("ended_*"))
    assert sorted(path.name for path in tmp_path.glob("told_*")) == ["told_0", "told_1"], "they had time for last words"
    assert all(map(gone, begun.values()))


@pytest.mark.parametrize("launcher", [name for name in choices("launcher") if name != "ray"])
def test_every_launcher_composes_and_is_no_part_of_what_a_job_is(launcher: str) -> None:
    assert composed(f"launcher={launcher}") == composed()


def test_a_launcher_that_is_not_installed_is_named_with_its_extra() -> None:
    missing = MissingConfigException("", "hydra/launcher/ray", ["basic", "joblib"])
    assert explain(missing, Path(), []) == "launcher: ray is not installed; pip install 'trustml-cli[ray]'"


def saved_sweep(folder: Path, task: list[str], hydra: list[str]) -> Path:
    sweep = folder / "outputs" / "multirun" / "1"
    sweep.mkdir(parents=True)
    (sweep / "multirun.yaml").write_text(json.dumps({"hydra": {"overrides": {"task": task, "hydra": hydra}}}))
    return sweep


def test_a_sweep_is_found_again_whatever_launches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = saved_sweep(tmp_path, ["launcher=joblib", "seed=0,1"], ["hydra.launcher.n_jobs=3", "hydra.mode=MULTIRUN"])
    (sweep / "job").mkdir()
    (sweep / "job" / "run.json").touch()
    here = "hydra.sweep.dir='outputs/multirun/1'"
    flags = ["--config-dir", "yours"]
    assert resumed_words(["seed=0,1", "resume=true"], ["-m", *flags]) == ["seed=0,1", "resume=true", here, "-m", *flags]
    again = "add it to the command: launcher=joblib hydra.launcher.n_jobs=3"
    with pytest.raises(InputError, match=again):
        resumed_words(["resume=outputs/multirun/1"], flags)
    typed = ["launcher=joblib", "hydra.launcher.n_jobs=3"]
    as_before = ["seed=0,1", *typed, "resume=true", here, "--multirun", *flags]
    assert resumed_words(["resume=outputs/multirun/1", *typed], flags) == as_before
    otherwise = ["seed=0,1", "launcher=slurm", "resume=true", here, "-m"]
    assert resumed_words(["resume=outputs/multirun/1", "launcher=slurm"], ["-m"]) == otherwise
    with pytest.raises(InputError, match="leave out seed=5"):
        resumed_words(["resume=outputs/multirun/1", "seed=5"], [])


def test_a_job_that_was_killed_under_ray_is_lost_and_no_other() -> None:
    class WorkerCrashedError(Exception):
        pass

    def get(job: str) -> str:
        if job == "killed":
            raise WorkerCrashedError
        return job

    ray = RayOrLost(SimpleNamespace(get=get, exceptions=SimpleNamespace(WorkerCrashedError=WorkerCrashedError)))
    assert [ray.get("first"), ray.get("last")] == ["first", "last"]
    assert ray.get("killed").return_value == 1
