"""Tables of many runs, and summaries over seeds."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import hypot, nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustml_cli.metrics.columns import OVER_SEEDS, PARTS, POOLED, within
from trustml_cli.results.csv_files import read_csv
from trustml_cli.results.recorder import DOES_NOT_COUNT, WHERE
from trustml_cli.results.run_facts import RunFacts, read_facts
from trustml_cli.system.files import is_in_use

if TYPE_CHECKING:  # not imported at run time, because a listing does not need it
    import pandas

IDENTITY = ("task", "dataset", "model", "seed")


@dataclass(frozen=True)
class Run:
    """A run directory and the facts in its run.json."""

    folder: Path
    facts: RunFacts

    @property
    def status(self) -> str:
        """`completed`, `failed`, `running`, `killed` or `unreadable`.

        A run is killed if its process is gone and run.json has no end status, and unreadable if its run.json is.
        """
        status = self.facts.status
        return "killed" if status == "running" and not is_in_use(self.folder) else status

    @cached_property
    def metrics(self) -> "pandas.DataFrame":
        """The run's metrics.csv; without rows if there is none or it cannot be read."""
        return table_in(self.folder, "metrics.csv")

    @property
    def conditions(self) -> list[str]:
        """The columns of metrics.csv that are conditions, not measured values."""
        return [name for name in self.facts.conditions if name in self.metrics and name not in IDENTITY]

    @property
    def varied(self) -> list[str]:
        """The conditions that differ between rows."""
        return [name for name in self.conditions if self.metrics[name].nunique(dropna=False) > 1]

    @property
    def headline(self) -> str | None:
        """The main metric of the task, if it was measured."""
        name = self.facts.headline
        return name if name in self.metrics else None

    @property
    def command(self) -> str:
        """The shell command that repeats this run."""
        return shlex.join(self.facts.command)

    @property
    def overrides(self) -> dict[str, str]:
        """The command-line overrides by key, except those that every row of metrics.csv contains anyway."""
        words = [word.lstrip("+").partition("=") for word in self.facts.command[1:] if "=" in word]
        return {
            key: value
            for key, _, value in words
            if key not in (*IDENTITY, *WHERE) and key.partition(".")[0] not in DOES_NOT_COUNT
        }


@dataclass(frozen=True)
class Refused(Run):
    """A job that was refused its directory, whose content belongs to another run. Its facts hold the reason."""

    @property
    def status(self) -> str:
        return "failed"

    @cached_property
    def metrics(self) -> "pandas.DataFrame":
        import pandas

        return pandas.DataFrame()


@dataclass(frozen=True)
class Answers:
    """A summary over seeds of the tasks that share a headline metric.

    `conditions` are the columns that are conditions, not measured values.
    """

    headline: str | None
    summary: "pandas.DataFrame"
    conditions: list[str]

    @property
    def varied(self) -> list[str]:
        """The conditions that differ between rows."""
        return [name for name in self.conditions if self.summary[name].nunique(dropna=False) > 1]


def read_run(folder: Path) -> Run:
    """The run in this directory, in any state."""
    return Run(folder, read_facts(folder))


def table_in(folder: Path, name: str) -> "pandas.DataFrame":
    """A table in a run's directory; without rows if it is absent or cannot be read."""
    import pandas

    try:
        return read_csv(folder / name, inside=folder)
    except (OSError, ValueError, RecursionError):  # pandas raises ValueErrors for malformed tables
        return pandas.DataFrame()


def read_runs(folder: Path) -> list[Run]:
    """Every run in or below `folder`, by start time; hidden folders are skipped, they hold copies only."""
    runs, folders = [], [folder]
    while folders:  # os.walk recurses for every level
        place = folders.pop()
        try:
            with os.scandir(place) as entries:
                below = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:  # deleted, of another user, or deeper than the longest possible path
            continue
        if below.get("run.json") is False:
            runs.append(read_run(Path(place)))
        else:
            folders += [Path(place, name) for name in sorted(below) if below[name] and not name.startswith(".")]
    return sorted(runs, key=lambda run: run.facts.started)


def sweep_table(runs: Sequence[Run]) -> "pandas.DataFrame":
    """Every row of every run, with its overrides and status as columns; a run without rows gets one row."""
    import pandas

    rows = []
    for run in runs:
        begins = {key: run.facts.get(key) for key in IDENTITY} | run.overrides
        ends = {"verdict": run.facts.verdict, "status": run.status, "error": run.facts.error, "run": run.folder.name}
        measured = run.metrics.to_dict("records") or [{}]
        rows += [{**begins, **row, **ends} for row in measured]
    table = pandas.DataFrame(rows)
    last = ["status", "error", "run"]
    if not any(run.facts.verdict for run in runs):
        table = table.drop(columns="verdict", errors="ignore")
    else:
        last = ["verdict", *last]
    return table[[column for column in table.columns if column not in last] + last]


def conditions_of(runs: Sequence[Run], table: "pandas.DataFrame") -> list[str]:
    """The columns that describe a run, except the seed; an override column equal to another one is left out."""
    done = table[table.status == "completed"]
    declared = [name for run in runs for name in run.facts.conditions]
    found = [name for name in dict.fromkeys(["task", "dataset", "model", *declared]) if name in done]
    for name in dict.fromkeys(name for run in runs for name in run.overrides):
        if name in done and name not in found and not any(same(done[name], done[other]) for other in found):
            found.append(name)
    return found


def same(column: "pandas.Series", other: "pandas.Series") -> bool:
    """Whether two columns are equal, compared as numbers (0.10 and 0.1) or as texts."""
    import pandas

    one, two = (pandas.to_numeric(values, errors="coerce").astype(float) for values in (column, other))
    if one.isna().equals(column.isna()) and one.equals(two):  # all values are numbers
        return True
    return column.astype(str).equals(other.astype(str))


def summarise(table: "pandas.DataFrame", conditions: Sequence[str]) -> "pandas.DataFrame":
    """Mean, standard deviation and 95 % intervals of every value over the seeds of each condition.

    NAME_over_seeds_ci_low and _high are Student's t interval over the seeds: retrained networks, same test images.
    NAME_pooled_ci_low and _high add the sampling error of the test images, taken from the runs' own intervals (each
    side separately, as in Zou and Donner 2008, "Construction of confidence limits about effect measures"); averaging
    does not reduce this error, because all seeds use the same images. Values whose runs have no interval have no pooled
    one. With one seed there is only its run's own interval. Intervals are clipped to the value's range. Column `seeds`
    is the number of seeds, and `verdict` holds the verdicts of its runs if there are any.
    """
    import pandas

    done = table[table.status == "completed"]
    skip = {*conditions, *IDENTITY, "verdict", "status", "error", "run"}
    values = [
        name
        for name in done.columns
        if name not in skip and not name.endswith(PARTS) and pandas.api.types.is_numeric_dtype(done[name])
    ]
    rows = []
    for key, group in done.groupby(list(conditions), dropna=False, sort=False):
        row: dict[str, Any] = dict(zip(conditions, key, strict=True)) | {"seeds": group["seed"].nunique(dropna=False)}
        parts = {name: [each for each in own_interval(name) if each in group] for name in values}
        numbers = group[["seed", *values, *(end for ends in parts.values() for end in ends)]].copy()
        for name, ends in parts.items():
            numbers.loc[numbers[name].isna(), ends] = nan
        by_seed = numbers.groupby("seed", dropna=False).mean()
        for name, ends in parts.items():
            row |= over_seeds(by_seed[[name, *ends]].dropna(subset=name))
        if "verdict" in group:
            row["verdict"] = "; ".join(map(str, dict.fromkeys(group["verdict"].dropna())))
        rows.append(row)
    return pandas.DataFrame(rows, columns=None if rows else [*conditions, "seeds"])


def own_interval(name: str) -> tuple[str, str]:
    """The columns with the interval that a run measured for value `name`."""
    return f"{name}_ci_low", f"{name}_ci_high"


def over_seeds(by_seed: "pandas.DataFrame") -> dict[str, float]:
    """The summary columns of one value: the first column of `by_seed`, a row for each seed; its interval may follow."""
    from scipy.special import stdtrit

    name, n, each = by_seed.columns[0], len(by_seed), by_seed.to_numpy(float)
    mean = float(each[:, 0].mean()) if n else nan
    deviation = float(each[:, 0].std(ddof=1)) if n > 1 else nan
    half = float(stdtrit(n - 1, 0.975)) * deviation / sqrt(n) if n > 1 else nan
    ends = {OVER_SEEDS: (mean - half, mean + half)}
    if each.shape[1] > 1:
        low, high = (float(((each[:, end] - each[:, 0]) ** 2).mean() ** 0.5) if n else nan for end in (1, 2))
        ends[POOLED] = (mean - hypot(half, low), mean + hypot(half, high)) if n > 1 else (mean - low, mean + high)
    row = {name: mean, f"{name}_std": deviation}
    for whose, (low, high) in ends.items():
        row[f"{name}{whose}_ci_low"], row[f"{name}{whose}_ci_high"] = within(name, low, high)
    return row


def widest(summary: "pandas.DataFrame", name: str) -> str:
    """Which interval of value `name` plots and terminals show: the one that includes most sources of error."""
    pooled = f"{name}{POOLED}_ci_low"
    return POOLED if pooled in summary and summary[pooled].notna().any() else OVER_SEEDS


def answers_of(runs: Sequence[Run], table: "pandas.DataFrame") -> list[Answers]:
    """Summarise `table`, the rows of these runs, over seeds: one part per headline metric, in order of appearance.

    One part without rows if no run was completed.
    """
    asked = {run.facts.task: run.headline for run in runs if run.status == "completed"}
    found = []
    for headline in dict.fromkeys(asked.values()) or [None]:
        tasks = [task for task in asked if asked[task] == headline]
        own, rows = [run for run in runs if run.facts.task in tasks], table[table["task"].isin(tasks)]
        rows = rows[[name for name in rows if rows.empty or rows[name].notna().any()]]
        conditions = conditions_of(own, rows)
        found.append(Answers(headline, summarise(rows, conditions), conditions))
    return found
