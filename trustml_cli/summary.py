"""Many runs as one table, and that table over seeds."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustml_cli.files import is_held
from trustml_cli.record import DOES_NOT_COUNT, WHERE
from trustml_cli.spreadsheet import read_csv

if TYPE_CHECKING:  # a listing has no need of it, and shall not wait for its import
    import pandas

IDENTITY = ("task", "dataset", "model", "seed")
NOT_VALUES = ("_ci_low", "_ci_high", "_n")


@dataclass(frozen=True)
class Run:
    """A run directory and what its run.json says."""

    folder: Path
    facts: dict[str, Any]

    @property
    def status(self) -> str:
        """`completed`, `failed`, `running`, or `killed` for one that is gone and never said how it ended."""
        status = self.facts.get("status", "running")
        return "killed" if status == "running" and not is_held(self.folder) else str(status)

    @cached_property
    def metrics(self) -> "pandas.DataFrame":
        """What it measured; without rows where it came to nothing."""
        import pandas

        path = self.folder / "metrics.csv"
        try:
            return read_csv(path) if path.exists() else pandas.DataFrame()
        except ValueError:  # pandas' errors about a file that is none of its own are ValueErrors
            return pandas.DataFrame()

    @property
    def conditions(self) -> list[str]:
        """The columns that say under what each row was measured."""
        return [name for name in self.facts.get("conditions", []) if name in self.metrics]

    @property
    def varied(self) -> list[str]:
        """The conditions that are not the same in all rows."""
        return [name for name in self.conditions if self.metrics[name].nunique(dropna=False) > 1]

    @property
    def headline(self) -> str | None:
        """The column that answers the task's question, if it was measured."""
        name = self.facts.get("headline")
        return name if name in self.metrics else None

    @property
    def better(self) -> dict[str, str]:
        """Which way each column is better, `higher` or `lower`; none where an earlier version made the run."""
        told = self.facts.get("better")
        return told if isinstance(told, dict) else {}

    @property
    def command(self) -> str:
        """What makes this run again, for a shell."""
        return shlex.join(self.facts.get("command", ["trustml"]))

    @property
    def overrides(self) -> dict[str, str]:
        """What the command line said, key by key, beside what the row begins with anyway."""
        words = [word.lstrip("+").partition("=") for word in self.facts.get("command", [])[1:] if "=" in word]
        return {
            key: value
            for key, _, value in words
            if key not in (*IDENTITY, *WHERE) and key.partition(".")[0] not in DOES_NOT_COUNT
        }


@dataclass(frozen=True)
class Refused(Run):
    """A job that was refused its directory; whatever lies there is another's. Its facts say why."""

    @property
    def status(self) -> str:
        return "failed"

    @cached_property
    def metrics(self) -> "pandas.DataFrame":
        import pandas

        return pandas.DataFrame()


@dataclass(frozen=True)
class Answers:
    """A summary over seeds that answers one question: of the tasks that have the same headline, if they have one.

    `conditions` are the columns that say under what each row was measured.
    """

    headline: str | None
    summary: "pandas.DataFrame"
    conditions: list[str]

    @property
    def varied(self) -> list[str]:
        """The conditions that are not the same in all rows."""
        return [name for name in self.conditions if self.summary[name].nunique(dropna=False) > 1]


def read_run(folder: Path) -> Run:
    """The run whose directory this is; of one that was killed while it claimed it, nothing is known."""
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = {}
    return Run(folder, facts if isinstance(facts, dict) else {})


def read_runs(folder: Path) -> list[Run]:
    """Every run in or below `folder`, in the order in which they started; hidden folders hold copies at most."""
    runs = []
    for path, folders, files in os.walk(folder):
        inside = [] if "run.json" in files else folders
        folders[:] = [name for name in inside if not name.startswith(".")]
        if "run.json" in files:
            runs.append(read_run(Path(path)))
    return sorted(runs, key=lambda run: str(run.facts.get("started", "")))


def sweep_table(runs: Sequence[Run]) -> "pandas.DataFrame":
    """Every row of every run, with its overrides as columns and its status; a run without rows has one that says so."""
    import pandas

    rows = []
    for run in runs:
        begins = {key: run.facts.get(key) for key in IDENTITY} | run.overrides
        ends = {"status": run.status, "error": run.facts.get("error"), "run": str(run.folder.name)}
        measured = run.metrics.to_dict("records") or [{}]
        rows += [{**begins, **row, **ends} for row in measured]
    table = pandas.DataFrame(rows)
    last = ["status", "error", "run"]
    return table[[column for column in table.columns if column not in last] + last]


def conditions_of(runs: Sequence[Run], table: "pandas.DataFrame") -> list[str]:
    """The columns that say what was run, seed aside; an override that only repeats another of them is left out."""
    done = table[table.status == "completed"]
    declared = [name for run in runs for name in run.facts.get("conditions", [])]
    found = [name for name in dict.fromkeys(["task", "dataset", "model", *declared]) if name in done]
    for name in dict.fromkeys(name for run in runs for name in run.overrides):
        if name in done and name not in found and not any(same(done[name], done[other]) for other in found):
            found.append(name)
    return found


def is_share(group: "pandas.DataFrame", name: str) -> bool:
    """Whether the values are shares of something: each with a count, and an interval within [0, 1]."""
    if f"{name}_n" not in group or f"{name}_ci_low" not in group:
        return False
    return bool(group[f"{name}_ci_low"].min() >= 0 and group[f"{name}_ci_high"].max() <= 1)


def same(column: "pandas.Series", other: "pandas.Series") -> bool:
    """Whether two columns say the same, be it as numbers (0.10 and 0.1) or as words."""
    import pandas

    one, two = (pandas.to_numeric(values, errors="coerce").astype(float) for values in (column, other))
    if one.isna().equals(column.isna()) and one.equals(two):  # numbers throughout
        return True
    return column.astype(str).equals(other.astype(str))


def summarise(table: "pandas.DataFrame", conditions: Sequence[str]) -> "pandas.DataFrame":
    """Mean, standard deviation and 95 % interval of every value over the seeds of each condition.

    With two seeds or more the interval is Student's t over the seeds; with one it is the run's own Wilson interval
    where there is one. Column `seeds` says how many there are.
    """
    import pandas
    from scipy.special import stdtrit

    done = table[table.status == "completed"]
    skip = {*conditions, *IDENTITY, "status", "error", "run"}
    values = [
        name
        for name in done.columns
        if name not in skip and not name.endswith(NOT_VALUES) and pandas.api.types.is_numeric_dtype(done[name])
    ]
    rows = []
    for key, group in done.groupby(list(conditions), dropna=False, sort=False):
        row: dict[str, Any] = dict(zip(conditions, key, strict=True)) | {"seeds": len(group)}
        for name in values:
            given = group[name].dropna()
            mean, n = given.mean(), len(given)
            deviation = given.std() if n > 1 else nan
            half = float(stdtrit(n - 1, 0.975)) * deviation / sqrt(n) if n > 1 else nan
            low, high = mean - half, mean + half
            if is_share(group, name):
                low, high = max(low, 0.0), min(high, 1.0)
            if n == 1 and f"{name}_ci_low" in group:
                low, high = group[f"{name}_ci_low"].iloc[0], group[f"{name}_ci_high"].iloc[0]
            row |= {name: mean, f"{name}_std": deviation, f"{name}_ci_low": low, f"{name}_ci_high": high}
        rows.append(row)
    return pandas.DataFrame(rows, columns=None if rows else [*conditions, "seeds"])


def answers_of(runs: Sequence[Run], table: "pandas.DataFrame") -> list[Answers]:
    """`table`, the rows of these runs, over seeds: a part for each question, in the order in which they come up.

    One part without rows where no run was completed.
    """
    asked = {run.facts.get("task"): run.headline for run in runs if run.status == "completed"}
    found = []
    for headline in dict.fromkeys(asked.values()) or [None]:
        tasks = [task for task in asked if asked[task] == headline]
        own, rows = [run for run in runs if run.facts.get("task") in tasks], table[table["task"].isin(tasks)]
        rows = rows[[name for name in rows if rows.empty or rows[name].notna().any()]]
        conditions = conditions_of(own, rows)
        found.append(Answers(headline, summarise(rows, conditions), conditions))
    return found
