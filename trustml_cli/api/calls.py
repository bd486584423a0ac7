"""`run`, `sweep`, `study` and `load`: the commands of the command line, whose results are objects."""

import os
import shlex
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NoReturn

from trustml_cli.api.finished import Run, Study, Sweep
from trustml_cli.api.surroundings import surroundings_kept
from trustml_cli.cli.main import MISTAKES, in_one_line, perform
from trustml_cli.config.groups import composed
from trustml_cli.results.run_facts import UNREADABLE
from trustml_cli.sweeps.callback import SweepCallback, finish_sweep, registered_runs
from trustml_cli.system.errors import TRACEBACK, InputError, RunFailed, error_line


def run(*words: str) -> Run:
    """Run one job: `trustml WORDS` on the command line; returns what it left behind.

    `words` are overrides (`"task=fgsm"`) and, if need be, flags (`"--config-dir", "mine"`). Nothing else of the Python
    process changes: random states, log handlers and warning filters are as before.

        run = trustml.run("task=fgsm", "model=cifar_cnn", "task.epsilon=[0,0.05,0.1]")
        run.metrics[["epsilon", "robust_accuracy"]]

    Raises `InputError` for wrong input, before anything is computed, and `RunFailed` if the run fails later; both say
    in one line what is wrong.
    """
    if {"-m", "--multirun"} & set(words) or any(word.startswith("study=") for word in words):
        raise InputError("run: is for one job; use sweep(...) or study(NAME, ...) for many")
    with surroundings_kept():
        command(words, raised=True)
        return Run.read(SweepCallback.folder) if SweepCallback.folder else printed_only(words)


def sweep(*words: str) -> Sweep:
    """Run a job for each combination of the values in `words`: `trustml -m WORDS` on the command line.

        sweep = trustml.sweep("task=fgsm", "model=mlp,cifar_cnn", "seed=0,1,2")
        sweep.summary

    Jobs that fail do not stop the others: they are named on standard error, and have a status in `.table`. Raises
    `InputError` or `RunFailed` if no job was completed.
    """
    flags = [] if {"-m", "--multirun"} & set(words) else ["-m"]
    with surroundings_kept():
        command([*flags, *words], raised=False)
        found = Sweep(SweepCallback.sweep.absolute()) if SweepCallback.sweep else printed_only(words)
    if found.runs and any(one.status == "completed" for one in found.runs):
        return found
    first = next(iter(found.runs), None)
    line = first.facts.error if first and first.facts.error else f"no job was completed; see {found.folder}"
    raise InputError(line) if SweepCallback.exit_code == 2 else RunFailed(line)


def study(name: str, *words: str) -> Study:
    """Run the study `name`: `trustml study NAME WORDS` on the command line.

        audit = trustml.study("audit", "model=cifar_cnn", "quick=true")
        audit.figures

    A figure outside of its limits raises nothing; `.holds` says whether the required ones are within theirs.
    """
    with surroundings_kept():
        command(["study", name, *words], raised=False)
        return Study(SweepCallback.sweep.absolute()) if SweepCallback.sweep else printed_only([name, *words])


def load(folder: str | PathLike[str]) -> Run:
    """The run that an earlier command left in `folder`, in any state. Raises `InputError` if there is none.

    run = trustml.load("outputs/fgsm/2026-11-21_11-30-51_c36f2d84")
    """
    found = Run.read(Path(folder).absolute())
    if not (found.folder / "run.json").exists():
        more = "; it is a sweep: Sweep(folder) reads it" if (found.folder / "multirun.yaml").exists() else ""
        raise InputError(f"{folder}: holds no run (run.json){more}; see trustml runs for those that do")
    if found.status == UNREADABLE:
        raise InputError(f"{folder}: {found.facts.error}")
    return found


def command(words: Sequence[str], raised: bool) -> None:
    """Perform a command; errors of a run are `raised`, or else printed, so that the other jobs of a sweep go on."""
    os.environ[TRACEBACK] = "1" if raised else "0"
    composed.cache_clear()  # YAML of the user's own may have changed since the last command
    try:
        perform(list(map(str, words)))
    except SystemExit as end:
        if isinstance(end.__context__, InputError):
            raise end.__context__ from None
    except Exception as error:
        if not raised and SweepCallback.sweep is not None and not isinstance(error, MISTAKES):
            finish_sweep(SweepCallback.sweep, registered_runs())
        if SweepCallback.folder is None or isinstance(error, MISTAKES):
            raise InputError(in_one_line(error)[0]) from None
        raise RunFailed(f"{error_line(error)}; see {SweepCallback.folder / 'trustml.log'}") from error


def printed_only(words: Sequence[str]) -> NoReturn:
    """Raise `InputError` for a command that only prints."""
    raise InputError(f"{shlex.join(words) or 'no words'}: runs nothing; give what to run, such as task=fgsm")
