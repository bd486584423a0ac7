"""Multiruns: how the whole command ended, the tables and the plot over its jobs, and how to resume one."""

import os
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from trustml_cli.errors import InputError
from trustml_cli.files import write_atomically

FEW = 20  # rows of a summary that still fit on a terminal


class Ending(Callback):
    """Hydra calls this when all jobs have ended, wherever they ran; `exit_code` is for `run.main` to read."""

    JOBS = "TRUSTML_JOBS"  # an environment variable, so that the processes of a launcher know it too

    exit_code = 0
    sweep: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Count the jobs there will be."""
        Ending.sweep = Path(config.hydra.sweep.dir)
        parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        swept = [len(list(word.sweep_string_iterator())) for word in parsed if word.is_sweep_override()]
        os.environ[Ending.JOBS] = str(prod(swept))

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """A single run: its own status."""
        job_return: JobReturn = kwargs["job_return"]
        Ending.exit_code = job_return._return_value or 0  # its property raises what the job raised

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """A multirun: add its jobs up, name those that failed, and take the worst of their statuses."""
        Ending.exit_code = add_up(Path(config.hydra.sweep.dir))


def add_up(sweep: Path) -> int:
    """Write sweep.csv, summary.csv, sweep.png and index.html for the jobs below `sweep`; returns their exit status."""
    from trustml_cli.plots.sweep import sweep_figure
    from trustml_cli.report.page import write_sweep
    from trustml_cli.summary import conditions_of, read_runs, summarise, sweep_table

    runs = read_runs(sweep)
    table = sweep_table(runs)
    conditions = conditions_of(runs, table)
    summary = summarise(table, conditions)
    write_atomically(sweep / "sweep.csv", lambda partial: table.to_csv(partial, index=False))
    write_atomically(sweep / "summary.csv", lambda partial: summary.to_csv(partial, index=False))
    headlines = {run.facts["headline"] for run in runs if run.status == "completed" and "headline" in run.facts}
    if len(headlines) == 1:
        headline = headlines.pop()
        figure = sweep_figure(summary, conditions, headline)
        write_atomically(sweep / "sweep.png", lambda partial: figure.savefig(partial))
        varied = [name for name in conditions if summary[name].nunique(dropna=False) > 1]
        columns = [*varied, "seeds", headline, f"{headline}_std", f"{headline}_ci_low", f"{headline}_ci_high"]
        shown = summary[columns].head(FEW).round(4).to_string(index=False, na_rep="")
        sys.stdout.write(f"\n{shown}\n{'…' if len(summary) > FEW else ''}\n")
    write_sweep(sweep, runs, summary, conditions)
    failed = [run for run in runs if run.status != "completed"]
    for run in failed:
        sys.stderr.write(f"trustml: {run.status}: {run.folder}: {run.facts.get('error', 'ended without a word')}\n")
    sys.stdout.write(f"{len(runs) - len(failed)} of {len(runs)} jobs completed; results are in {sweep}\n")
    # 1, a run that was lost after computing, outweighs 2, an input that was wrong
    return min((run.facts.get("exit_code") or 1 for run in failed), default=0)


def resumed_words(words: Sequence[str]) -> list[str]:
    """The command line with `resume=true` or `resume=DIRECTORY` made to go on with an earlier sweep.

    `resume=true` takes the newest sweep of the same command, or begins it if there is none; a directory brings its
    command along. Anything else is returned as it is.
    """
    asked = next((word.partition("=")[2] for word in words if word.startswith("resume=")), "false")
    if asked.lower() == "false":
        return list(words)
    others = [word for word in words if not word.startswith("resume=")]
    if asked.lower() != "true":
        saved = Path(asked) / "multirun.yaml"
        if not saved.is_file():
            raise InputError(f"resume: {asked} is no sweep's directory (there is no {saved}); give one, or true")
        return ["--multirun", *overrides_in(saved), "resume=true", into(Path(asked))]
    if not {"-m", "--multirun"} & set(others):
        raise InputError("resume: goes with a multirun; add -m, or give the directory of the sweep to go on with")
    keys = [word for word in others if not word.startswith("-")]
    output_dir = next((word.partition("=")[2] for word in keys if word.startswith("output_dir=")), "outputs")
    saved_sweeps = sorted(Path(output_dir).glob("multirun/*/multirun.yaml"), reverse=True)
    same = next((saved.parent for saved in saved_sweeps if overrides_in(saved) == keys), None)
    return [*others, "resume=true", *([into(same)] if same else [])]


def overrides_in(saved: Path) -> list[str]:
    """The overrides of the sweep whose multirun.yaml this is."""
    words = OmegaConf.load(saved).hydra.overrides.task
    return [word for word in words if not word.startswith("resume=")]


def into(sweep: Path) -> str:
    """The override that makes Hydra use this directory again."""
    escaped = str(sweep).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.sweep.dir='{escaped}'"
