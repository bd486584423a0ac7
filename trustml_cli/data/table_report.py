"""A report of how each column of a table was read, with remarks on what may be read otherwise than it is meant."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from trustml_cli.data.table_columns import as_numbers, as_text
from trustml_cli.data.table_features import RARE
from trustml_cli.data.table_file import is_number
from trustml_cli.system.errors import short, some_of

SHOWN = 5  # categories in a line of the report
FEW = 20  # distinct values at most that a column is listed with, and suspected of repeating the label
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")
IDENTIFIER = re.compile(r"(.*[\W_])?(id|index|row)", re.IGNORECASE)


@dataclass(frozen=True)
class Report:
    """`rows` describe a column each; `remarks` are warnings, each one sentence without its full stop."""

    rows: Sequence[Mapping[str, Any]]
    remarks: Sequence[str]


def counts_rows(column: "pandas.Series[Any]") -> bool:
    """Whether the values are whole numbers that rise by one from row to row."""
    return len(column) > 1 and is_number(column) and bool((column.diff().iloc[1:] == 1).all())


def report(
    frame: pandas.DataFrame,
    label: str,
    sensitive: Sequence[str],
    favourable: NDArray[np.bool_],
    out: Mapping[str, str],
    decimal: str,
) -> Report:
    """Report on the columns of a table as they were understood; `out` says why columns are left out.

    `favourable` says for each row whether it has the favourable label; `decimal` is the mark before decimals.
    """
    rows: list[dict[str, Any]] = []
    remarks: list[str] = []
    for name in map(str, frame):
        column = frame[name]
        if name in out:
            found, role = [], "left out"
        elif name == label or name in sensitive:
            role = "label" if name == label else "sensitive"
            found = list(doubts_about_groups(column))
        else:
            role = "number" if is_number(column) else "category"
            found = list(doubts(column, favourable, decimal))
        rows.append(
            {
                "column": name,
                "read_as": role,
                "values": column.nunique(),
                "missing": int(column.isna().sum()),
                "content": out.get(name) or content(column, everything=role in ("label", "sensitive")),
                "remark": "; ".join(found),
            }
        )
        remarks += [f"column {short(name)} {doubt}" for doubt in found]
    return Report(rows, remarks)


def content(column: "pandas.Series[Any]", everything: bool) -> str:
    """The range of numbers, or the categories with their numbers of rows.

    Values in few rows, which could be names of people, are counted only, unless `everything` is wanted.
    """
    if column.isna().all():
        return "no value"
    if is_number(column) and not everything:
        return f"{column.min():g} to {column.max():g}, median {column.median():g}"
    counts = column.map(as_text).value_counts()
    listed = counts.head(FEW) if everything else counts[counts >= RARE].head(SHOWN)
    words = [f"{value} ({count:,})" for value, count in listed.items()]
    others = counts[len(listed) :]
    return ", ".join([*words, *([f"{len(others):,} more ({others.sum():,})"] if len(others) else [])])


def doubts(column: "pandas.Series[Any]", favourable: NDArray[np.bool_], decimal: str) -> Iterator[str]:
    """What speaks against using a column as the feature that it was read as."""
    drop = f"leave it out with dataset.drop={written([column.name])}"
    known = column.dropna()
    distinct = known.nunique()
    if is_number(column):
        if counts_rows(column) or (IDENTIFIER.fullmatch(str(column.name)) and distinct == len(column) > 1):
            yield f"numbers the rows; {drop}"
    else:
        yield from doubts_about_words(known, decimal, drop)
    if 1 < distinct <= FEW:
        shares = pandas.Series(favourable[column.notna()]).groupby(known.to_numpy()).mean()
        if shares.isin([0, 1]).all() and 0 < shares.mean() < 1:
            yield f"has one label for each of its {distinct} values; if it repeats the label, {drop}"


def doubts_about_words(known: "pandas.Series[Any]", decimal: str, drop: str) -> Iterator[str]:
    """What speaks against reading the texts `known` as categories."""
    counts = known.value_counts()
    words = np.array([str(word) for word in counts.index], dtype=object)
    rows = counts.to_numpy()
    other_mark = "," if decimal == "." else "."
    plain = np.isfinite(as_numbers(words, decimal))
    ways = {  # numbers that are written otherwise, and what makes numbers of them; the first way that fits all is told
        f"dataset.numeric={written([known.name])}": as_numbers(words, decimal, thousands=True),
        f"dataset.decimal={other_mark!r}": as_numbers(words, other_mark),
        "plain numbers in the file": as_numbers([word.strip("%$€£ ") for word in words], decimal),
    }
    numbers = plain | np.isfinite(list(ways.values())).any(axis=0)
    share = rows[numbers].sum() / rows.sum()
    if share > 0.5 and not plain.all():
        advice = []
        if not plain[numbers].all():
            advice = [way for way, found in ways.items() if np.isfinite(found[numbers]).all()] or ["one decimal mark"]
            advice = advice[:1]
        if not numbers.all():
            missing = f"dataset.na_values={written(words[~numbers][:SHOWN].tolist())}"
            advice.append(f"{missing}, if such words stand for no value")
        because = some_of(map(repr, words[~plain][:SHOWN]))
        told = f"holds numbers in {100 * share:.0f} % of its rows, and is read as categories because of {because}"
        yield f"{told}; use {' and '.join(advice)}"
    elif len(words) > 1 and rows[[bool(DATE.fullmatch(word)) for word in words]].sum() > 0.9 * rows.sum():
        yield f"holds dates, each of which becomes a category; make numbers of them, or {drop}"
    elif len(words) > max(FEW, 0.9 * rows.sum()):
        yield f"has another value in almost every row; {drop}"


def doubts_about_groups(column: "pandas.Series[Any]") -> Iterator[str]:
    """Groups or labels that may be meant as one."""
    values = sorted(set(column.dropna().map(as_text)))
    alike: dict[str, list[str]] = {}
    for value in values:
        alike.setdefault(value.rstrip(" .,;:_").casefold() or value, []).append(value)
    for several in alike.values():
        if len(several) > 1:
            yield f"tells {some_of(map(repr, several))} apart; if they are one, write them alike"


def written(names: Sequence[object]) -> str:
    """Names as a list on a command line, quoted where Hydra wants it."""
    return f"[{','.join(map(quoted, map(str, names)))}]"


def quoted(name: str) -> str:
    """A name as Hydra reads it in a list."""
    if re.fullmatch(r"[\w.-]+", name):
        return name
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", name).replace("'", "\\'")
    return f"'{escaped}'"
