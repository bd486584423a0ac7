"""A user's own table: files that are read right, files that are refused, and what is said of columns."""

import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.configs import composed
from tests.helpers import NO_CACHE, Cli
from trustml_cli.config.instantiate import build
from trustml_cli.config.trust import Permissions
from trustml_cli.data.table import Table
from trustml_cli.data.table_columns import as_numbers
from trustml_cli.data.table_file import unique_names
from trustml_cli.data.table_report import quoted
from trustml_cli.data.unpacked import unpacked
from trustml_cli.system.errors import InputError

NAMES = ["age", "town", "sex", "hired"]
PEOPLE = [
    [str(20 + row % 17), ("Ulm", "Bonn", "Kiel")[row % 3], "fm"[row % 2], "no" if row * 7 % 10 < 5 else "yes"]
    for row in range(60)
]
AGE, TOWN, SEX, HIRED = range(4)
CSV = composed("dataset=csv").dataset
Rows = Sequence[Sequence[str]]


def text(rows: Rows = PEOPLE, names: Sequence[str] = NAMES, separator: str = ",", end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in [names, *rows])


def changed(column: int, change: Callable[[int, str], str]) -> Rows:
    """The people with another value in one column, made of the row's number and the old value."""
    return [[*person[:column], change(row, person[column]), *person[column + 1 :]] for row, person in enumerate(PEOPLE)]


def every(nth: int, word: str) -> Callable[[int, str], str]:
    return lambda row, value: word if row % nth == 0 else value


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, text())
    return content.getvalue()


def read(folder: Path, content: str | bytes, **keys: Any) -> Table:
    file = folder / "people.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    known = {"path": str(file), "label": "hired", "positive": "yes", "sensitive": "sex", "bins": 0, **keys}
    table = build(OmegaConf.merge(CSV, known), "dataset", Permissions(folders=[Path("/")])).load(NO_CACHE)
    assert isinstance(table, Table)
    return table


def same(one: Table, two: Table) -> bool:
    return one.attributes == two.attributes and all(
        torch.equal(getattr(getattr(one, split), what), getattr(getattr(two, split), what))
        for split in ("train", "test")
        for what in ("inputs", "labels", "sensitive")
    )


PLAIN = text()
AS_MEANT: dict[str, tuple[str | bytes, dict[str, Any]]] = {
    "the last line without an end": (PLAIN.rstrip("\n"), {}),
    "blanks at the end": (f"{PLAIN}   \n\n  ", {}),
    "CR": (text(end="\r"), {}),
    "CRLF": (text(end="\r\n"), {}),
    "blank lines": ("\n\n" + text(end="\n\n"), {}),
    "rows of commas": (f",,,\n{PLAIN},,,\n,,,\n", {}),
    "a comma after each row": (text([[*person, ""] for person in PEOPLE]), {}),
    "a comma after the header": (text(names=[*NAMES, ""]), {}),
    "row numbers as pandas writes them": (text([[str(n), *p] for n, p in enumerate(PEOPLE)], ["", *NAMES]), {}),
    "quoted names": (text(names=[f'"{name}"' for name in NAMES]), {}),
    "blanks around": (text([[f" {cell} " for cell in p] for p in PEOPLE], [f" {name} " for name in NAMES]), {}),
    "UTF-8 with a mark": (f"\ufeff{PLAIN}", {}),
    "UTF-16": (PLAIN.encode("utf-16"), {}),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-be"), {"encoding": "utf-16-be"}),
    "UTF-16 with tabs, as Excel": (text(separator="\t", end="\r\n").encode("utf-16"), {}),
    "semicolons": (text(separator=";"), {}),
    "bars": (text(separator="|"), {}),
    "tabs": (text(separator="\t"), {}),
    "tabs that are named": (text(separator="\t"), {"separator": r"\t"}),
    "a separator of one's own": (text(separator="^"), {"separator": "^"}),
    "decimal commas": (text(changed(AGE, lambda _, age: f"{age},0"), separator=";"), {"decimal": ","}),
    "marks between thousands": (text(changed(AGE, lambda _, age: f'"0,0{age}"')), {"numeric": "age"}),
    "gzip": (gzip.compress(PLAIN.encode()), {}),
    "bzip2": (bz2.compress(PLAIN.encode()), {}),
    "xz": (lzma.compress(PLAIN.encode()), {}),
    "zip": (zipped("people.csv", "__MACOSX/._people.csv"), {}),
    "an empty column": (text([[*p, ""] for p in PEOPLE], [*NAMES, "note"]), {}),
    "a doubled name, left out": (text([[*p, p[3]] for p in PEOPLE], [*NAMES, "hired"]), {"drop": "hired.1"}),
}


@pytest.mark.parametrize(("content", "keys"), AS_MEANT.values(), ids=AS_MEANT)
def test_a_file_is_read_as_it_is_meant(content: str | bytes, keys: dict[str, Any], tmp_path: Path) -> None:
    assert same(read(tmp_path, content, **keys), read(tmp_path, PLAIN))


def test_long_and_broken_cells_are_cells(tmp_path: Path) -> None:
    rows = [*PEOPLE[:-2], ["30", f'"{"x" * 200_000}"', "f", "yes"], ["30", "Bonn", "f", '"yes\n"']]
    table = read(tmp_path, text(rows).rstrip("\n"))
    assert len(table.train) + len(table.test) == 60
    assert table.classes == ("no", "yes")


REFUSED: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "a cell more in each row": (
        text([[*p, "9"] for p in PEOPLE]),
        {},
        "more cells than its header, which is age",
    ),
    "a cell more in the first row": (text([[*PEOPLE[0], "9"], *PEOPLE[1:]]), {}, "more cells than its header"),
    "a cell more in a later row": (text([*PEOPLE[:9], [*PEOPLE[9], "9"]]), {}, "line 11"),
    "a title above": (f"Applicants\n{PLAIN}", {}, "which is Applicants; name every column in the first line"),
    "a cut row": (PLAIN[:-8], {}, "ends in the middle of a row"),
    "a doubled label": (text([[*p, p[3]] for p in PEOPLE], [*NAMES, "hired"]), {}, r"dataset\.drop=\[hired\.1\]"),
    "no UTF-8": (text(changed(TOWN, lambda *_: "Köln")).encode("cp1252"), {}, r"dataset\.encoding, e\.g\. cp1252"),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), {}, r"dataset\.encoding, e\.g\. utf-16"),
    "two files": (zipped("a.csv", "b.csv"), {}, r"holds 2 files \(a\.csv, b\.csv\)"),
    "Excel": (zipped("[Content_Types].xml", "xl/workbook.xml"), {}, "an Excel workbook; save its sheet as CSV"),
    "half a gzip": (gzip.compress(PLAIN.encode())[:-30], {}, "Compressed file ended"),
    "a damaged gzip": (gzip.compress(PLAIN.encode())[:20] + b"\xff" * 50, {}, "people.csv cannot be read"),
    "words among numbers": (
        text(changed(AGE, every(9, "old"))),
        {"numeric": "age"},
        "no number in 7 rows: old; .*na",
    ),
    "a numeric column that is absent": (PLAIN, {"numeric": "ages"}, r"^dataset\.numeric: no column 'ages'"),
    "two characters": (PLAIN, {"separator": "::"}, r"^dataset\.separator: must be one character"),
    "no encoding": (PLAIN, {"encoding": "utf-9"}, r"^dataset\.encoding: there is no 'utf-9'"),
    "no decimal mark": (PLAIN, {"decimal": ";"}, r"^dataset\.decimal: must be"),
    "no labels": (text(changed(HIRED, lambda *_: "")), {}, r"^dataset\.label: column 'hired' .* has no values"),
}


@pytest.mark.parametrize(("content", "keys", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_would_be_misread_is_refused(
    content: str | bytes, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content, **keys)
    assert "\n" not in str(caught.value)


NUMBERED = [[str(row), *person] for row, person in enumerate(PEOPLE)]
REMARKS: dict[str, tuple[str, str, str]] = {  # what the column in question was read as, and a remark
    "row numbers": (text(NUMBERED, ["nr", *NAMES]), "nr number", r"column 'nr' numbers the rows; .*drop=\[nr\]"),
    "unnamed row numbers": (text(NUMBERED, ["", *NAMES]), "column 1 left out", "'column 1' is left out: no name"),
    "an unnamed column": (text([[p[0], *p] for p in PEOPLE], ["", *NAMES]), "column 1 number", "called 'column 1'"),
    "an empty column": (text(changed(TOWN, lambda *_: "")), "town left out", "column 'town' is left out: no value"),
    "a doubled name": (
        text([[*p, p[0]] for p in PEOPLE], [*NAMES, "age"]),
        "age.1 number",
        "'age' and 'age.1' have",
    ),
    "a copy of the label": (
        text([[*p, p[3]] for p in PEOPLE], [*NAMES, "x"]),
        "x category",
        "'x' has one label",
    ),
    "?": (
        text(changed(AGE, every(9, "?"))),
        "age category",
        r"in 88 % .*because of '\?'; .*na_values=\['\?'\]",
    ),
    "1,234": (
        text(changed(AGE, every(9, '"1,234"'))),
        "age category",
        r"of '1,234'; use dataset\.numeric=\[age\]$",
    ),
    "1,2": (text(changed(AGE, every(2, '"1,2"'))), "age category", r"use dataset\.decimal=','$"),
    "percent": (text(changed(AGE, lambda _, age: f"{age}%")), "age category", "use plain numbers in the file"),
    "dates": (text(changed(TOWN, lambda row, _: f"2020-01-{1 + row % 28:02}")), "town category", "holds dates"),
    "names": (
        text(changed(TOWN, lambda row, _: f"Person {row}")),
        "town category",
        "another value in almost every",
    ),
    "three labels": (
        text(changed(HIRED, every(9, "maybe"))),
        "hired label",
        "3 values; 'yes' is .*: maybe, no",
    ),
    "labels with stops": (text(changed(HIRED, every(9, "yes."))), "hired label", "tells 'yes', 'yes.' apart"),
    "labels missing": (text(changed(HIRED, every(9, ""))), "hired label", "7 rows without a label in column 'hired'"),
    "groups missing": (text(changed(SEX, every(9, ""))), "sex sensitive", "7 rows have no value in column 'sex'"),
    "groups alike": (text(changed(SEX, every(8, "F"))), "sex sensitive", "tells 'F', 'f' apart"),
    "empty rows": (f"{PLAIN},,,\n,,,\n", "age number", "2 rows without any value are left out"),
    "short rows": (text([PEOPLE[0], PEOPLE[1][1:], *PEOPLE[2:]]), "age category", "1 rows have fewer .* is row 2;"),
}


@pytest.mark.parametrize(("content", "read_as", "remark"), REMARKS.values(), ids=REMARKS)
def test_what_may_be_misread_is_said(content: str, read_as: str, remark: str, tmp_path: Path) -> None:
    table = read(tmp_path, content)
    assert read_as in [f"{row['column']} {row['read_as']}" for row in table.columns_read]
    assert any(re.search(remark, note) for note in table.notes), table.notes


def test_columns_are_reported_and_nothing_is_said_against_good_ones(tmp_path: Path) -> None:
    table = read(tmp_path, PLAIN)
    assert table.notes == ()
    assert [tuple(row.values()) for row in table.columns_read] == [
        ("age", "number", 17, 0, "20 to 36, median 27", ""),
        ("town", "category", 3, 0, "Ulm (20), Bonn (20), Kiel (20)", ""),
        ("sex", "sensitive", 2, 0, "f (30), m (30)", ""),
        ("hired", "label", 2, 0, "no (30), yes (30)", ""),
    ]


def test_rare_values_are_counted_and_not_listed_for_they_may_be_names(tmp_path: Path) -> None:
    table = read(tmp_path, text(changed(TOWN, lambda row, town: "Bonn" if row % 2 else f"Person {row}")))
    assert table.columns_read[TOWN]["content"] == "Bonn (30), 30 more (30)"


def test_words_for_nothing_stay_words_among_words_and_are_missing_among_numbers(tmp_path: Path) -> None:
    table = read(tmp_path, text(changed(SEX, lambda _, sex: "NA" if sex == "f" else sex)))
    assert table.attributes[0].groups == ("NA", "m")
    table = read(tmp_path, text(changed(HIRED, lambda _, hired: "None" if hired == "no" else hired)))
    assert table.classes == ("None", "yes")
    missing = [
        read(tmp_path, text(changed(AGE, every(9, word))), na_values=values)
        for word, values in (("NA", []), ("", []), ("?", ["?"]), ("-999", [-999]), ("-999.0", ["-999"]))
    ]
    assert all(same(missing[0], other) for other in missing[1:])
    assert missing[0].columns_read[AGE]["missing"] == 7
    assert missing[0].notes == ()


def test_codes_keep_their_zeros_unless_they_shall_be_numbers(tmp_path: Path) -> None:
    codes = text(changed(TOWN, lambda row, _: f"0{(row - 1) % 3 + 1}"))
    assert same(read(tmp_path, codes), read(tmp_path, PLAIN)), "a category for each"
    assert read(tmp_path, codes, numeric="town").columns_read[TOWN]["content"] == "1 to 3, median 2"


@pytest.mark.parametrize(
    ("no", "yes", "positive", "classes"),
    [
        ("0", "1", "1", ("0", "1")),
        ("0", "1", "1.0", ("0", "1")),
        ("0.0", "1.0", "1", ("0", "1")),
        ("False", "True", "true", ("False", "True")),
        ("FALSE", "TRUE", "True", ("FALSE", "TRUE")),
        ("01", "02", "2", ("01", "02")),
    ],
)
def test_a_label_is_found_however_it_is_written(
    no: str, yes: str, positive: str, classes: tuple[str, str], tmp_path: Path
) -> None:
    table = read(tmp_path, text(changed(HIRED, lambda _, hired: yes if hired == "yes" else no)), positive=positive)
    assert table.classes == classes
    assert same(table, read(tmp_path, PLAIN))


def test_a_parquet_table_is_the_same_as_its_text(tmp_path: Path) -> None:
    frame = pandas.DataFrame(PEOPLE, columns=NAMES).astype({"age": int, "town": "category"})
    frame["hired"] = frame["hired"] == "yes"
    frame.index = pandas.Index([*range(100, 160)])  # which pandas writes too
    frame.to_parquet(tmp_path / "people.parquet")
    table = read(tmp_path, (tmp_path / "people.parquet").read_bytes(), positive="true")
    assert same(table, read(tmp_path, PLAIN))
    assert [row["read_as"] for row in table.columns_read] == ["number", "category", "sensitive", "label", "left out"]
    frame.assign(town=[[1]] * 60).to_parquet(tmp_path / "people.parquet")
    with pytest.raises(InputError, match="column 'town' holds lists or structures"):
        read(tmp_path, (tmp_path / "people.parquet").read_bytes())


def test_a_file_that_unpacks_to_more_than_fits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(10**6)))
    with unpacked(tmp_path / "zeros.gz", 10**6) as file:
        assert len(file.read()) == 10**6
    with unpacked(tmp_path / "zeros.gz", 10**6 - 1) as file, pytest.raises(OSError, match="more than 999,999 bytes"):
        file.read()


def test_made_up_names_meet_no_other() -> None:
    names, doubled, unnamed = unique_names(["a", "", "a", "a.1", "a", "column 2"])
    assert len(set(names)) == 6
    assert names[0] == "a"
    assert set(doubled.values()) == {"a"}
    assert len(unnamed) == 1


def test_numbers_are_what_they_look_like() -> None:
    words = ["1", " 2.5", "1e3", "-4", "x", "", "1,234", "1,23", "12,345,678.5", "1 234", "1.234,5"]
    plain = [1, 2.5, 1000, -4] + [np.nan] * 7
    np.testing.assert_equal(as_numbers(words, "."), plain)
    np.testing.assert_equal(
        as_numbers(words, ".", thousands=True), [*plain[:6], 1234, np.nan, 12345678.5, 1234, np.nan]
    )
    np.testing.assert_equal(as_numbers(["2,5", "2.5", "1.234,5"], ",", thousands=True), [2.5, np.nan, 1234.5])


@pytest.mark.parametrize("name", ["plain", "a-b.1", "?", "a, b", "it's", "back\\slash", "[x]", "a:b", ""])
def test_a_name_in_advice_can_be_typed(name: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"dataset.drop=[{quoted(name)}]"])
    assert [str(one) for one in override.value()] == [name]


def test_a_run_shows_how_its_table_was_read(trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(text(NUMBERED, ["id", *NAMES]))
    words = ["dataset=csv", "dataset.path=people.csv", "dataset.label=hired", "dataset.positive=yes"]
    answer = trustml("task=train", "trainer=smoke", "model=logistic", *words, "dataset.sensitive=sex")
    assert answer.returncode == 0, answer.stderr
    assert "dataset: town: category, 3 values, Ulm (20), Bonn (20), Kiel (20)" in answer.stdout
    (run,) = tmp_path.glob("outputs/train/*")
    remark = "column 'id' numbers the rows; leave it out with dataset.drop=[id]"
    assert json.loads((run / "run.json").read_text())["data"]["notes"] == [remark]
    assert pandas.read_csv(run / "columns.csv")["column"].tolist() == ["id", *NAMES]
    page = (run / "report.html").read_text()
    assert "drop=[id]" in page
    assert "Ulm (20), Bonn (20), Kiel (20)" in page
