"""HTML fragments that show a run, a sweep or a study in a notebook."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas

from trustml_cli.metrics.columns import OVER_SEEDS, PARTS, POOLED
from trustml_cli.results.aggregate import Run, answers_of, sweep_table
from trustml_cli.results.report.page import picture_in, plots_of, render
from trustml_cli.results.report.table import readable

BESIDE = 3  # most columns that a notebook shows beside the headline


def run_in_notebook(run: Run) -> str:
    """HTML that shows a run in a notebook: verdict, the headline and a few columns beside it, and the pictures."""
    beside = [name for name in run.facts.better if name in run.metrics and name not in (run.headline, "seconds")]
    columns = [*run.varied, *([run.headline] if run.headline else []), *beside[:BESIDE]]
    return notebook(
        title=f"{run.facts.task}: {run.facts.model} on {run.facts.dataset}",
        status="" if run.status == "completed" else run.status,
        page=nearby(run.folder / "report.html"),
        error=run.facts.error or "",
        verdict=run.facts.verdict or "",
        tables=[readable(with_intervals(run.metrics, columns), run.varied)],
        plots=plots_of(run.folder),
    )


def sweep_in_notebook(sweep: Path, runs: Sequence[Run]) -> str:
    """HTML that shows a sweep in a notebook: its headlines over what was swept, and its picture."""
    answers = [one for one in answers_of(runs, sweep_table(runs)) if one.headline in one.summary]
    picture = picture_in(sweep, sweep / "sweep.png")
    return notebook(
        title=f"{len(runs)} jobs",
        page=nearby(sweep / "index.html"),
        tables=[
            readable(with_intervals(one.summary, [*one.varied, "seeds", str(one.headline)]), [*one.varied, "seeds"])
            for one in answers
        ],
        plots=[("the headline over what was swept", picture)] if picture else [],
    )


def study_in_notebook(study: Path, title: str, figures: pandas.DataFrame) -> str:
    """HTML that shows the figures of a study in a notebook."""
    columns = [name for name in ("item", "label", "value", "limit", "verdict") if name in figures]
    return notebook(title=title, page=nearby(study / "index.html"), tables=[readable(figures[columns], columns[:2])])


def notebook(**content: Any) -> str:
    """Render the fragment for a notebook."""
    empty = {"status": "", "error": "", "verdict": "", "plots": []}
    return render("notebook.html", **{**empty, **content})


def with_intervals(frame: pandas.DataFrame, columns: Sequence[str]) -> pandas.DataFrame:
    """Some columns of a table, with their intervals and counts."""
    ends = [f"{whose}{end}" for whose in ("", OVER_SEEDS, POOLED) for end in PARTS]
    names = [name for column in columns for name in (column, *(f"{column}{end}" for end in ends)) if name in frame]
    return frame[list(dict.fromkeys(names))]


def nearby(page: Path) -> str:
    """The path of a page relative to the current directory, for a link; empty if it is absent, or not below it."""
    here, page = Path.cwd(), page.absolute()
    return page.relative_to(here).as_posix() if page.is_file() and page.is_relative_to(here) else ""
