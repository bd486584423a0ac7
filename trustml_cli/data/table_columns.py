"""What the text in a table's columns means: numbers or categories."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from trustml_cli.data.table_file import is_number
from trustml_cli.system.errors import InputError, some_of
from trustml_cli.system.printable import printable

LARGEST_WHOLE = 2.0**53  # up to which a float64 holds every whole number
NO_NUMBER = ("#N/A", "#NA", "#NULL!", "N/A", "NA", "NULL", "NaN", "None", "-NaN", "-nan", "<NA>", "n/a", "nan", "null")
"""Words for a missing number. In a column of words they are words: a group may be called NA."""
CODE = re.compile(r"[+-]?0\d+")  # a postal code such as 01234, of which a number would lose the zero


@dataclass(frozen=True)
class Reading:
    """How the cells of all columns are understood.

    `decimal` is the mark before decimals. `na_values` stand for no value, in any column. Columns in `numeric` must be
    numbers, and may have marks between thousands.
    """

    decimal: str = "."
    na_values: Sequence[str] = ()
    numeric: Sequence[str] = ()


def as_text(value: Any) -> str:
    """A value as the name of a group or category; a missing value is '?', as in UCI's files."""
    if pandas.isna(value):
        return "?"
    whole = isinstance(value, float) and value.is_integer()  # pandas has integer columns with missing values as float
    return str(int(value) if whole else value)


def interpret(frame: pandas.DataFrame, how: Reading) -> pandas.DataFrame:
    """The columns as numbers (int64, float64) or texts (object), NaN where there is no value.

    A column is numeric if all its values are numbers, or words for a missing number, and none is a code with leading
    zeros. Raises `InputError` for a column in `how.numeric` with other values.
    """
    return pandas.DataFrame({name: interpret_column(frame[name], how) for name in frame}, index=frame.index, copy=False)


def interpret_column(column: "pandas.Series[Any]", how: Reading) -> "pandas.Series[Any]":
    """One column of `interpret`."""
    no_values = as_numbers(list(how.na_values), how.decimal)
    if is_number(column):
        return column.where(~column.isin(no_values[np.isfinite(no_values)])) if how.na_values else column
    codes, uniques = pandas.factorize(column)
    words = np.array([*(printable(str(word).strip()) for word in uniques), ""], dtype=object)  # the last for NaN, -1
    numbers = as_numbers(words, how.decimal, thousands=column.name in how.numeric)
    absent = np.isin(words, ["", *how.na_values]) | (np.isin(numbers, no_values) & np.isfinite(numbers))
    no_number = np.isnan(numbers) & ~absent
    strange = no_number & ~np.isin(words, NO_NUMBER)
    if column.name in how.numeric:
        if strange.any():
            rows, them = strange[codes].sum(), some_of(words[strange])
            raise InputError(
                f"dataset.numeric: column {column.name!r} holds no number in {rows:,} rows: {them}; mend them, or give "
                "dataset.na_values if such words stand for no value"
            )
    elif strange.any() or (no_number | absent).all() or any(map(CODE.fullmatch, words[~absent])):
        words[absent] = np.nan
        return pandas.Series(words[codes], index=column.index, name=column.name, dtype=object)
    numbers[absent | no_number] = np.nan
    cells = numbers[codes]
    whole = bool((np.abs(cells) < LARGEST_WHOLE).all()) and bool((cells == cells.round()).all())
    return pandas.Series(cells.astype(np.int64) if whole else cells, index=column.index, name=column.name)


def as_numbers(words: Iterable[str], decimal: str, thousands: bool = False) -> NDArray[np.float64]:
    """Each word as a number, float64; NaN for any other. `thousands`: 1,234,567 and 1 234 567 are numbers too."""
    if thousands:
        mark = "," if decimal == "." else r"\."
        grouped = re.compile(rf"[+-]?\d{{1,3}}(([{mark}\s'’])\d{{3}})(\2\d{{3}})*({re.escape(decimal)}\d*)?")
        words = [re.sub(rf"[{mark}\s'’]", "", word) if grouped.fullmatch(word) else word for word in words]
    if decimal == ",":
        words = [word.translate({ord(","): ".", ord("."): ","}) for word in words]
    numbers = pandas.to_numeric(pandas.Series(list(words), dtype=object), errors="coerce")
    return numbers.to_numpy(dtype=np.float64, copy=True)
