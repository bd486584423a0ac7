"""Multiruns: the exit status of the whole command, and the tables and the plot over its jobs."""

import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from trustml_cli.config.groups import values_of
from trustml_cli.config.hydra_internals import have_jobs
from trustml_cli.metrics.columns import written
from trustml_cli.results.claim import refuse_others_sweep
from trustml_cli.results.csv_files import as_csv
from trustml_cli.sweeps.launchers import check_each_kind_once, outlive_killed_jobs
from trustml_cli.sweeps.resume import as_written, command_of, own_choices
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import write_atomically, write_json
from trustml_cli.system.printable import printable
from trustml_cli.system.streams import write_if_possible

if TYPE_CHECKING:
    from trustml_cli.results.aggregate import Answers, Run
    from trustml_cli.results.study import Item, Measured, Study

log = logging.getLogger(__name__)

FEW = 20  # most rows of a summary that are printed on a terminal


class SweepCallback(Callback):
    """Hydra callback around single runs and multiruns; `cli.main` reads `exit_code`."""

    # environment variables, so that launcher processes inherit them
    JOBS = "TRUSTML_JOBS"
    ATTENDANCE = "TRUSTML_ATTENDANCE"

    exit_code = 0
    sweep: Path | None = None
    folder: Path | None = None
    """The directory of the run, or of the job of a sweep that began last in this process."""
    error: Exception | None = None
    """The error that a single run raised, because the user wants tracebacks."""
    broken = False
    """Whether a figure that its user marked `required` is not within its limits."""
    study: "tuple[Study, dict[str, Item]] | None" = None
    asked: ClassVar[dict[str, list[list[str]]]] = {}
    """What each item of the study asks, whatever the model."""

    @classmethod
    def forget(cls) -> None:
        """Forget the last command of this process."""
        cls.exit_code, cls.broken = 0, False
        cls.sweep = cls.folder = cls.error = cls.study = None
        os.environ.pop(cls.JOBS, None)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set the status to failure until the run ends, because Hydra continues when a callback fails."""
        SweepCallback.exit_code = 1

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Count the jobs, and prepare the launcher so that a killed job does not end the others."""
        SweepCallback.exit_code = 1
        try:
            refuse_others_sweep(Path(config.hydra.sweep.dir))
            jobs = deal_jobs(config, as_written(config.hydra.overrides.task))
        except InputError as error:  # Hydra would continue, and overwrite the directory
            write_if_possible(f"trustml: error: {error}\n", to=sys.stderr)
            sys.exit(2)
        SweepCallback.sweep = Path(config.hydra.sweep.dir)
        os.environ[SweepCallback.JOBS] = str(jobs)
        os.environ[SweepCallback.ATTENDANCE] = str(SweepCallback.sweep.absolute() / f".jobs-{secrets.token_hex(4)}")
        outlive_killed_jobs(config.hydra.launcher._target_)
        check_each_kind_once()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep where the job writes."""
        SweepCallback.folder = Path(config.hydra.runtime.output_dir)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Release the job's config, which Hydra would keep until the last job has ended."""
        job_return.cfg = job_return.hydra_cfg = None

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Take over the exit status of a single run, or the error that it raised, which Hydra would print too."""
        job_return: JobReturn = kwargs["job_return"]
        returned = job_return._return_value  # the property would raise the error
        if isinstance(returned, Exception):
            SweepCallback.error, job_return.status = returned, JobStatus.COMPLETED
        else:
            SweepCallback.exit_code = returned or 0

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Summarise the jobs of a multirun, name those that failed, and take the worst of their exit statuses."""
        finish_sweep(Path(config.hydra.sweep.dir), registered_runs())


def deal_jobs(config: DictConfig, words: Sequence[str]) -> int:
    """Decide which jobs a multirun has: those of its study if it has one; returns their number."""
    SweepCallback.study, SweepCallback.broken = None, False
    if config.get("study") is None:
        have_jobs(None)
        return count_jobs(words)
    from trustml_cli.results.against import asked_of, check_against
    from trustml_cli.results.study import read_study
    from trustml_cli.sweeps.study import jobs_of

    study, items = SweepCallback.study = read_study(config.study)
    of_item = jobs_of(items, study.quick, words, GlobalHydra.instance().config_loader())
    SweepCallback.asked = asked_of(of_item)
    if study.against is not None:
        check_against(Path(study.against), SweepCallback.asked)
    jobs = [job for each in of_item.values() for job in each]
    have_jobs(jobs)
    return len(jobs)


def count_jobs(words: Sequence[str]) -> int:
    """Number of jobs of a multirun. Raises `InputError` for a sweep without a value, such as a glob without a match."""
    loader = GlobalHydra.instance().config_loader()  # knows the choices that a glob stands for
    parsed = OverridesParser.create(loader).parse_overrides(list(words))
    swept = {word.input_line: len(list(word.sweep_iterator())) for word in parsed if word.is_sweep_override()}
    if nothing := [line for line, count in swept.items() if not count]:
        raise InputError(f"{nothing[0]}: stands for no value; see trustml show for the names of choices")
    return prod(swept.values())


def register_job(job: int, folder: Path, **refused: Any) -> None:
    """Record that a job of this command runs in `folder`, or that it was `refused` there, with error and status.

    The content of a sweep's directory does not tell which command wrote it.
    """
    notes = Path(os.environ[SweepCallback.ATTENDANCE])
    notes.mkdir(parents=True, exist_ok=True)
    write_json(notes / f"{job}.json", {"job": job, "folder": str(folder), "refused": refused})


def registered_runs() -> "list[Run]":
    """The runs of this command's jobs that began, in order; removes the records of `register_job`."""
    from trustml_cli.results.aggregate import Refused, read_run
    from trustml_cli.results.run_facts import RunFacts

    notes = Path(os.environ[SweepCallback.ATTENDANCE])
    sweep = SweepCallback.sweep or notes.parent
    jobs = [json.loads(note.read_text(encoding="utf-8")) for note in notes.glob("[0-9]*.json")]
    shutil.rmtree(notes, ignore_errors=True)
    runs = []
    for job in sorted(jobs, key=lambda job: int(job["job"])):
        folder = Path(job["folder"])
        folder = sweep / folder.relative_to(notes.parent) if folder.is_relative_to(notes.parent) else folder
        runs.append(Refused(folder, RunFacts(**job["refused"])) if job["refused"] else read_run(folder))
    return runs


def finish_sweep(sweep: Path, runs: "Sequence[Run]") -> int:
    """Write the summary of `runs` into `sweep`, and name those that failed; returns the exit status of the sweep.

    The files are written and the status is set before anything is printed, because printing may fail.
    """
    from trustml_cli.results.aggregate import Refused

    tabulated = tabulate_study if SweepCallback.study else tabulate
    jobs = max(len(runs), int(os.environ.get(SweepCallback.JOBS, 0)))
    lost, summary, complaints = 0, "", []
    try:
        if not all(isinstance(run, Refused) for run in runs):  # otherwise earlier jobs' tables stay unchanged
            summary = tabulated(sweep, runs)
    except Exception as error:  # the jobs' own results are kept, and their statuses are still reported
        log.debug("traceback", exc_info=True)
        complaints.append(f"error: the jobs could not be summed up: {type(error).__name__}: {error}")
        lost = 1
    failed = [run for run in runs if run.status != "completed"]
    for run in failed:
        why = " ".join((run.facts.error or "ended without a message").split())
        if not (SweepCallback.study and summary and run.facts.exit_code == 2):  # a study's table has these reasons
            complaints.append(f"{run.status}: {run.folder}: {why}")
    if missing := jobs - len(runs):
        logs = sweep / ".submitit"
        why = f"; their logs are in {logs}" if logs.is_dir() else ""
        complaints.append(f"{missing} of {jobs} jobs never began{why}")
    # 1 (a run failed after computing began, or was interrupted) takes precedence over 2 (wrong input)
    codes = [2 if run.facts.exit_code == 2 else 1 for run in failed]
    if SweepCallback.study and codes.count(2) < jobs:  # what cannot be asked of a model is told as not measured
        codes = [code for code in codes if code != 2]
    broken = 3 if SweepCallback.broken else 0
    SweepCallback.exit_code = lost or min(codes, default=1 if missing else broken)
    write_if_possible(summary, to=sys.stdout)
    write_if_possible("".join(f"trustml: {complaint}\n" for complaint in complaints), to=sys.stderr)
    write_if_possible(f"{len(runs) - len(failed)} of {jobs} jobs completed; results are in {sweep}\n", to=sys.stdout)
    return SweepCallback.exit_code


def tabulate(sweep: Path, runs: "Sequence[Run]") -> str:
    """Write sweep.csv, summary.csv, sweep.png and index.html for `runs`; returns the summary for a terminal."""
    import pandas

    from trustml_cli.plots.style import save
    from trustml_cli.results.aggregate import answers_of, sweep_table
    from trustml_cli.results.report.page import write_sweep
    from trustml_cli.sweeps.plot import sweep_figure

    table = sweep_table(runs)
    answers = answers_of(runs, table)
    summary = pandas.concat([one.summary for one in answers])
    write_atomically(sweep / "sweep.csv", lambda partial: partial.write_text(as_csv(table), encoding="utf-8"))
    write_atomically(sweep / "summary.csv", lambda partial: partial.write_text(as_csv(summary), encoding="utf-8"))
    if told := [one for one in answers if one.headline in one.summary]:  # a headline may have no value in any run
        figure = sweep_figure(told)
        write_atomically(sweep / "sweep.png", lambda partial: save(figure, partial))
    saved = sweep / "multirun.yaml"
    words = [*own_choices(saved), *command_of(saved)] if saved.exists() else []
    write_sweep(sweep, runs, answers, words)
    return "".join(f"\n{as_text(one, str(one.headline))}" for one in told)


def tabulate_study(sweep: Path, runs: "Sequence[Run]") -> str:
    """Write study.csv, study.json, junit.xml and index.html of a study; returns its figures for a terminal."""
    import pandas

    from trustml_cli.results.against import compare
    from trustml_cli.results.aggregate import read_runs
    from trustml_cli.results.model_card import model_card
    from trustml_cli.results.report.study import write_study
    from trustml_cli.results.study import completed, item_of, junit

    assert SweepCallback.study is not None
    study, items = SweepCallback.study
    others = read_runs(Path(study.against)) if study.against is not None else []
    of_item, of_other = (
        {name: [run for run in each if item_of(run) == name] for name in items} for each in (runs, others)
    )
    measured = {name: compare(name, item, of_item[name], of_other[name]) for name, item in items.items()}
    rows = [each for figures in measured.values() for each in figures]
    SweepCallback.broken = any(each.broken for each in rows)
    table = pandas.DataFrame([asdict(each) for each in rows])
    write_atomically(sweep / "study.csv", lambda partial: partial.write_text(as_csv(table), encoding="utf-8"))
    content = {"title": study.title, "asked": SweepCallback.asked, "figures": [asdict(each) for each in rows]}
    write_json(sweep / "study.json", content)
    write_atomically(
        sweep / "junit.xml", lambda partial: partial.write_text(junit(study.title, rows), encoding="utf-8")
    )
    if study.model_card and (done := completed(runs)):
        card = model_card(study, done, rows)
        write_atomically(sweep / "README.md", lambda partial: partial.write_text(card, encoding="utf-8"))
    write_study(sweep, study, items, of_item, measured)
    return f"\n{figures_as_text(rows)}\n"


def figures_as_text(figures: "Sequence[Measured]") -> str:
    """The figures of a study as the lines of a table; columns that hold nothing are left out."""
    titles = ("item", "figure", "value", "95 % interval", "n", "limit", "verdict", "against", "why")
    rows = [
        (each.item, each.label, each.written(each.value), each.interval, f"{each.n:,}" if each.n is not None else "",
         each.limit, each.verdict, each.against, each.why)
        for each in figures
    ]  # fmt: skip
    columns = [column for column in zip(titles, *rows, strict=True) if any(column[1:])]
    cells = [[printable(cell) for cell in column] for column in columns]
    widths = [max(map(len, column)) for column in cells]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in zip(*cells, strict=True))


def as_text(answers: "Answers", headline: str) -> str:
    """The headline metric over the swept overrides, for a terminal: first what all rows share, then the table."""
    from trustml_cli.results.aggregate import widest
    from trustml_cli.results.report.table import shown

    summary, varied = answers.summary, answers.varied
    common = ", ".join(f"{name} {shown(summary[name].iloc[0])}" for name in answers.conditions if name not in varied)
    whose = widest(summary, headline)
    values = [f"{headline}{end}" for end in ("", "_std", f"{whose}_ci_low", f"{whose}_ci_high")]
    table = (
        summary[[*varied, "seeds", *values]]
        .head(FEW)
        .assign(
            **{name: summary[name].map(shown) for name in varied},
            **{name: summary[name].map(lambda value: written(headline, value), na_action="ignore") for name in values},
        )
        .dropna(axis="columns", how="all")  # one seed has no standard deviation
        .rename(columns=lambda name: name.removeprefix(f"{headline}_"))
    )
    rest = f"… {len(summary) - FEW} more in summary.csv\n" if len(summary) > FEW else ""
    return f"{common}\n{table.to_string(index=False, na_rep='')}\n{rest}"


def refuse_repetition(overrides: Sequence[str]) -> None:
    """Raise `InputError` for an override that sweeps over a value twice: its jobs would share a directory."""
    for word in OverridesParser.create().parse_overrides(list(overrides)):
        values = list(word.sweep_string_iterator()) if word.is_sweep_override() and values_of(word) else []
        if twice := [value for value in values if values.count(value) > 1]:
            raise InputError(f"{word.input_line}: has {twice[0]} twice; give each value once")
