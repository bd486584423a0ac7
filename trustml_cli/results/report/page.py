"""Writes HTML pages: report.html of a run, index.html of a sweep, and comparisons of runs."""

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader, StrictUndefined

from trustml_cli.config.groups import config_folder, description
from trustml_cli.metrics.columns import in_words, written
from trustml_cli.results.aggregate import IDENTITY, Answers, Run, read_run, read_runs, table_in
from trustml_cli.results.masking import known_secrets, masked, without
from trustml_cli.results.report.curve import small_curve
from trustml_cli.results.report.headlines import ends, headline_columns, headlines, result
from trustml_cli.results.report.slider import slider_in
from trustml_cli.results.report.table import NOTHING, is_part, readable, shown, sortable
from trustml_cli.results.run_facts import LARGEST_CONFIG, config_in, read_facts
from trustml_cli.system.distribution import own_version
from trustml_cli.system.files import write_atomically
from trustml_cli.system.printable import printable
from trustml_cli.system.user_file import MB, read_bytes, read_text

FEW = 12  # most headline values that are shown as cards
SIDE_BY_SIDE = 4  # most runs that are columns of the table of differences
LARGEST_PICTURE = 16 * MB  # maximum size in bytes of a picture on a page
PNG = b"\x89PNG\r\n\x1a\n"  # the signature of a PNG file
WIDE = 1200  # pixels of a picture from which on it has the whole width of a page
DPI = 150  # of every plot; at this size its letters are as large as those of the page
FAILED = re.compile(r" \(failed: (?:[^()]|\([^()]*\))*\)")  # the failed checks in a verdict, which a page lists
PICTURED = 12  # most runs whose pictures a comparison shows; each adds about 100 kB to the page


def write_run(folder: Path) -> Path:
    """Write report.html in a run's directory from the files in it; returns the file."""
    run = read_run(folder)
    history = table_in(folder, "history.csv")
    tasks = {file.stem: file for file in (config_folder() / "task").glob("*.yaml")}
    task = tasks.get(run.facts.task or "")
    same, headline = same_in_all(run), run.metrics[headline_columns(run)]
    return write(
        folder / "report.html",
        "run.html",
        title=f"{run.facts.task}: {run.facts.model} on {run.facts.dataset}",
        run=run,
        purpose=description(task) if task else "",
        headlines=headlines(run),
        few=FEW,
        headline_table=readable(headline.drop(columns=same), run.conditions),
        headline_ends=ends(run),
        plots=plots_of(folder),
        slider=slider_in(folder),
        metrics=readable(important_first(run).drop(columns=same), run.conditions),
        same=[(name, run.metrics[name].iloc[0]) for name in same],
        tables=[
            (path.stem.replace("_", " "), readable(frame, list(frame.columns[:1])))
            for path in sorted(folder.glob("*.csv"))
            if path.name not in ("metrics.csv", "history.csv")
            for frame in [table_in(folder, path.name)]
            if len(frame)
        ],
        history=readable(history, []) if len(history) else None,
        choices=[each for each in run.facts.choices.items() if each[0] != "launcher" and "@" not in each[0]],
        changed=[(key, *map(as_written, both.values())) for key, both in masked(run.facts.changed).items()],
        config=config_of(run),
    )


def write_sweep(sweep: Path, runs: Sequence[Run], answers: Sequence[Answers], words: Sequence[str]) -> Path:
    """Write index.html in a sweep's directory: the plot, the summary, and every job; returns the file.

    `words` are the words of the command line.
    """
    picture = picture_in(sweep, sweep / "sweep.png")
    return write(
        sweep / "index.html",
        "sweep.html",
        title=f"{len(runs)} jobs",
        words=shlex.join(words),
        runs=[
            (run, result(run), small_curve(run), run.folder / "report.html", words_of)
            for run, words_of in zip(runs, told_apart([run.folder.name for run in runs]), strict=True)
        ],
        sweep=sweep,
        picture=picture,
        summaries=[
            (
                [(name, one.summary[name].iloc[0]) for name in one.conditions if name not in one.varied],
                readable(headline_first(one), [*one.varied, "seeds"]),
            )
            for one in answers
            if len(one.summary)
        ],
    )


def write_comparison(folders: Sequence[Path], to: Path) -> Path:
    """Write a comparison of runs to the file `to`: first their differences; the best of each value is marked.

    A folder may be a run or contain many, as a sweep does; returns the file.
    """
    runs = list({run.folder.resolve(): run for folder in folders for run in read_runs(folder)}.values())
    names = [str(number) for number in range(1, len(runs) + 1)]
    plots = [dict(plots_of(run.folder)) for run in runs[:PICTURED]]
    return write(
        to,
        "comparison.html",
        title=f"{len(runs)} runs side by side",
        runs=list(zip(names, runs, map(result, runs), strict=True)),
        differences=differences(runs),
        as_rows=len(runs) > SIDE_BY_SIDE,
        results=[
            (task, readable(rows_in_order(rows, conditions), ["run", *conditions], agreed(own)))
            for task, own, rows, conditions in by_task(runs, names)
        ],
        plots=[
            (title, [(name, own[title]) for name, own in zip(names, plots, strict=False) if title in own])
            for title in dict.fromkeys(title for own in plots for title in own)
        ],
        pictured=len(plots),
    )


def told_apart(names: Sequence[str]) -> list[list[str]]:
    """The words between the commas of each job's name, without those that all jobs share."""
    words = [name.split(",") for name in names]
    shared = set[str]().union(*words).intersection(*words) if len(words) > 1 else set()
    return [[word for word in each if word not in shared] or each for each in words]


def by_task(runs: Sequence[Run], names: Sequence[str]) -> Iterator[tuple[str, list[Run], pandas.DataFrame, list[str]]]:
    """For each task its runs, their rows with the run's name in column `run`, and the conditions."""
    for task in dict.fromkeys(str(run.facts.task or "") for run in runs):
        named = {name: run for name, run in zip(names, runs, strict=True) if str(run.facts.task or "") == task}
        parts = [important_first(run).assign(run=name) for name, run in named.items()]
        conditions = list(dict.fromkeys(name for run in named.values() for name in run.conditions))
        yield task, list(named.values()), pandas.concat(parts, ignore_index=True), conditions


def write(path: Path, template: str, **content: Any) -> Path:
    """Render `template` with the style, the script and `content` into one file."""
    script = source("sort.js") + source("slider.js")
    text = render(
        template,
        **content,
        style=source("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=own_version(),
    )
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))
    return path


def render(template: str, **content: Any) -> str:
    """The text of a template with this content."""
    found = environment()
    found.globals["secrets"] = known_secrets()  # once for the thousands of texts of a page
    return found.get_template(template).render(**content)


@cache
def environment() -> Environment:
    """The Jinja environment: templates beside this file, autoescaping, and errors for undefined names."""
    found = Environment(
        loader=PackageLoader("trustml_cli.results.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: safe(value) if type(value) is str else value,  # not our own markup, a subclass
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["shown"] = shown
    found.filters["in_words"] = in_words
    found.filters["wide"] = wide
    found.filters["inches"] = lambda data: width_of(data) / DPI
    found.filters["briefly"] = lambda verdict: FAILED.sub("", verdict[:1].upper() + verdict[1:])
    found.filters["written"] = lambda value, name: written(name, value)
    return found


def safe(text: str) -> str:
    """A text as a page may show it: secrets masked, control characters escaped."""
    secrets: Any = environment().globals["secrets"]
    return printable(without(secrets, text, ""), keep="\n\t")


def source(name: str) -> str:
    """The text of a file beside the templates."""
    loader = environment().loader
    assert loader is not None
    return loader.get_source(environment(), name)[0]


def headline_first(answers: Answers) -> pandas.DataFrame:
    """A summary without the conditions that are the same in all rows, the headline before the other values."""
    same = set(answers.conditions) - set(answers.varied)
    left = answers.summary.drop(columns=same).drop(columns="verdict", errors="ignore")  # the table of jobs has it
    first = [*answers.varied, "seeds"]
    names = [str(name) for name in left]
    first += [name for name in names if answers.headline and name.startswith(answers.headline)]
    return left[[*first, *(name for name in names if name not in first)]]


def important_first(run: Run) -> pandas.DataFrame:
    """metrics.csv without the run's identity: conditions, headline, what it is compared with, then the other columns.

    Columns without a better direction, such as sizes, are last.
    """
    frame = run.metrics.drop(columns=[*IDENTITY], errors="ignore")
    first = headline_columns(run)
    rest = [name for name in map(str, frame.columns) if name not in first]
    neither = [name for name in rest if run.facts.better and not is_part(name, rest) and name not in run.facts.better]
    return frame[[*first, *(name for name in rest if name not in neither), *neither]]


def same_in_all(run: Run) -> list[str]:
    """The conditions that are the same in every row of a run."""
    return [name for name in run.conditions if name in run.metrics and name not in run.varied]


def plots_of(folder: Path) -> list[tuple[str, str]]:
    """The plots of a run in the order in which it made them: a title from the file name, and a data: URL.

    The first is the one that answers the task's question.
    """
    files = read_facts(folder).others.get("files")
    made = [name for name in files if isinstance(name, str)] if isinstance(files, list) else []
    order = {name: number for number, name in enumerate(made)}
    paths = sorted((folder / "plots").glob("*.png"), key=lambda path: (order.get(f"plots/{path.name}", 1e9), path))
    pictures = [(path.stem.replace("_", " "), picture_in(folder, path)) for path in paths]
    return [(title, data) for title, data in pictures if data is not None]


def picture_in(folder: Path, path: Path) -> str | None:
    """A PNG in a run's directory as a data: URL, so that the page needs no other file.

    None if it is absent, not a PNG, or a link that leads out of the directory: a shared page must not include files
    from elsewhere.
    """
    try:
        content = read_bytes(path, LARGEST_PICTURE, inside=folder)
    except OSError:
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}" if content.startswith(PNG) else None


def width_of(data: str) -> int:
    """The width in pixels of a PNG in a data: URL, as `picture_in` returns it."""
    start = base64.b64decode(data.partition(",")[2][:32])
    return int.from_bytes(start[16:20])


def wide(data: str) -> bool:
    """Whether such a PNG is too wide for half a page, and for a phone."""
    return width_of(data) > WIDE


def config_of(run: Run) -> str:
    """The whole configuration as YAML; empty if config.yaml is absent or cannot be read."""
    try:
        return read_text(run.folder / "config.yaml", LARGEST_CONFIG, inside=run.folder)
    except (OSError, ValueError):
        return ""


def rows_in_order(frame: pandas.DataFrame, conditions: Sequence[str]) -> pandas.DataFrame:
    """The rows sorted by their conditions, each numerically, or as text if any value is a text."""

    def key(column: pandas.Series) -> pandas.Series:
        values = column.map(sortable)
        return values if all(isinstance(value, float) for value in values) else values.astype(str)

    return frame.sort_values(list(conditions), kind="stable", key=key)


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Choices and config keys that differ between the runs, with each run's value."""
    configs = [
        {name: run.facts.get(name) for name in IDENTITY}
        | {group: choice for group, choice in run.facts.choices.items() if group not in IDENTITY}
        | config_in(run.folder)
        for run in runs
    ]
    keys = [key for key in dict.fromkeys(key for config in configs for key in config) if not key.endswith("_target_")]
    rows = [(key, [as_written(config.get(key)) for config in configs]) for key in keys]
    return [(key, masked(values, key)) for key, values in rows if len(set(values)) > 1]


def agreed(runs: Sequence[Run]) -> dict[str, str]:
    """Which direction is better for each column, without columns on which the tasks disagree."""
    told = [(name, way) for run in runs for name, way in run.facts.better.items()]
    return {name: way for name, way in told if all(way == other for one, other in told if one == name)}


def as_written(value: Any) -> str:
    """A value as written on a command line; – for None."""
    if value is None:
        return NOTHING
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else str(value)
