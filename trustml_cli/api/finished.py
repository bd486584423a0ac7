"""What runs, sweeps and studies leave behind, as Python objects."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trustml_cli.results import aggregate
from trustml_cli.results.aggregate import read_runs, table_in
from trustml_cli.results.run_facts import LARGEST_CONFIG, read_facts
from trustml_cli.system.user_file import read_text, read_yaml

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Run(aggregate.Run):
    """A run's directory. A notebook shows its headline, verdict and pictures.

    `folder` is the directory, `status` how the run ended, `metrics` its metrics.csv, `headline` the name of its main
    column, and `facts` what run.json says. Tables are read once.
    """

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The run in this directory, in any state."""
        return cls(folder, read_facts(folder))

    @cached_property
    def history(self) -> "pandas.DataFrame":
        """One row for each epoch of each network that was trained; without rows if none was."""
        return table_in(self.folder, "history.csv")

    @property
    def plots(self) -> dict[str, Path]:
        """The pictures (PNG) by name."""
        return {path.stem: path for path in sorted((self.folder / "plots").glob("*.png"))}

    @property
    def report(self) -> Path:
        """The page report.html."""
        return self.folder / "report.html"

    @property
    def checks(self) -> "pandas.DataFrame":
        """The conditions that the result must satisfy to be trusted: `name`, `passed` (None: undecided), `figure`."""
        import pandas

        return pandas.DataFrame(list(self.facts.checks), columns=["name", "passed", "figure"])

    @property
    def verdict(self) -> str | None:
        """Whether the figures can be believed, and why not; None for a task that judges nothing."""
        return self.facts.verdict

    @cached_property
    def config(self) -> dict[str, Any]:
        """The whole configuration, resolved; `run.config["task"]["epsilon"]`."""
        text = read_text(self.folder / "config.yaml", LARGEST_CONFIG, inside=self.folder)
        return dict(read_yaml(text))

    def __repr__(self) -> str:
        facts = self.facts
        return f"<trustml run: {facts.task}, {facts.model} on {facts.dataset}, {self.status}, in {self.folder}>"

    def _repr_html_(self) -> str:
        from trustml_cli.results.report.notebook import run_in_notebook

        return run_in_notebook(self)


@dataclass(frozen=True, repr=False)
class Sweep:
    """A sweep's directory. A notebook shows its summary and its picture."""

    folder: Path

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of the jobs that began, by start time."""
        return [Run(one.folder, one.facts) for one in read_runs(self.folder)]

    @cached_property
    def table(self) -> "pandas.DataFrame":
        """Every row of every job, with the overrides and the job's `status` and `error` as columns (sweep.csv)."""
        return table_in(self.folder, "sweep.csv")

    @cached_property
    def summary(self) -> "pandas.DataFrame":
        """Mean, standard deviation and 95 % intervals over the seeds of each condition (summary.csv)."""
        return table_in(self.folder, "summary.csv")

    @property
    def plot(self) -> Path:
        """The picture of the main column over what was swept."""
        return self.folder / "sweep.png"

    @property
    def report(self) -> Path:
        """The page index.html."""
        return self.folder / "index.html"

    def __repr__(self) -> str:
        return f"<trustml {type(self).__name__.lower()} of {len(self.runs)} jobs in {self.folder}>"

    def _repr_html_(self) -> str:
        from trustml_cli.results.report.notebook import sweep_in_notebook

        return sweep_in_notebook(self.folder, self.runs)


@dataclass(frozen=True, repr=False)
class Study(Sweep):
    """A study's directory."""

    @cached_property
    def figures(self) -> "pandas.DataFrame":
        """Each figure with its value, interval, limit and verdict (study.csv)."""
        return table_in(self.folder, "study.csv")

    @property
    def holds(self) -> bool:
        """Whether every figure that is `required` is within its limits."""
        return not self.figures["broken"].any()

    def _repr_html_(self) -> str:
        from trustml_cli.results.report.notebook import study_in_notebook

        return study_in_notebook(self.folder, f"a study of {len(self.runs)} jobs", self.figures)
