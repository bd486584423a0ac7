"""Writes index.html of a study: a table of its figures, then a section for each item with its answer and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trustml_cli.results.aggregate import Run
from trustml_cli.results.report.page import plots_of, write
from trustml_cli.results.study import Item, Measured, Study, answer_of

FEW = 2  # pictures of an item that names none


def write_study(
    folder: Path,
    study: Study,
    items: Mapping[str, Item],
    runs: Mapping[str, Sequence[Run]],
    measured: Mapping[str, Sequence[Measured]],
) -> Path:
    """Write index.html in the directory of a study; returns the file."""
    return write(
        folder / "index.html",
        "study.html",
        title=study.title,
        introduction=study.introduction,
        quick=study.quick,
        against=study.against,
        figures=[each for figures in measured.values() for each in figures],
        items=[
            {
                "name": name,
                "item": item,
                "runs": [(run, page_of(folder, run)) for run in runs[name]],
                "measured": measured[name],
                "answer": answer_of(item, measured[name]),
                "plots": pictures(item, runs[name]),
            }
            for name, item in items.items()
        ],
    )


def page_of(folder: Path, run: Run) -> str | None:
    """The address of a run's page, relative to the study's; None if it has none."""
    page = run.folder / "report.html"
    return page.relative_to(folder).as_posix() if page.is_relative_to(folder) and page.exists() else None


def pictures(item: Item, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The pictures of the item's first run that has any: those that it names, in its order, or the first two."""
    plots = next((found for run in runs if (found := plots_of(run.folder))), [])
    if not item.plots:
        return plots[:FEW]
    by_name = dict(plots)
    wanted = [name.replace("_", " ") for name in item.plots]
    return [(name, by_name[name]) for name in wanted if name in by_name]
