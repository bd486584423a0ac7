"""Writes index.html of a study: a table of its figures, then a section for each item with its answer and pictures."""

import re
from collections.abc import Mapping, Sequence
from math import isinf
from pathlib import Path

from trustml_cli.metrics.columns import natural_range
from trustml_cli.results.aggregate import Run
from trustml_cli.results.report.page import plots_of, told_apart, write
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
    told = [each for figures in measured.values() for each in figures]
    return write(
        folder / "index.html",
        "study.html",
        title=study.title,
        introduction=study.introduction,
        quick=study.quick,
        against=study.against,
        card=study.model_card,
        judged=any(each.verdict for each in told),
        limited=any(each.limit or each.source for each in told),
        figures={name: [(each, bar_of(each)) for each in figures] for name, figures in measured.items() if figures},
        items=[
            {
                "name": name,
                "item": item,
                "runs": [
                    (run, page_of(folder, run), words)
                    for run, words in zip(runs[name], told_apart([run.folder.name for run in runs[name]]), strict=True)
                ],
                "measured": measured[name],
                "answer": unbroken(answer_of(item, measured[name])),
                "plots": pictures(item, runs[name]),
            }
            for name, item in items.items()
        ],
    )


def unbroken(text: str) -> str:
    """The text without the end of a line between a number and its unit or name."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bn) (?== \d)|(?<=\bn =) ", "\u00a0", text)


def bar_of(each: Measured) -> tuple[float, float, float] | None:
    """Where a bar ends and its interval begins and ends, in percent; None for a value that has no bounds."""
    least, most = natural_range(each.metric)
    if each.value is None or isinf(least) or isinf(most):
        return None
    low, high = (each.value if end is None else end for end in (each.ci_low, each.ci_high))
    value, low, high = (100 * (place - least) / (most - least) for place in (each.value, low, high))
    return value, low, high


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
