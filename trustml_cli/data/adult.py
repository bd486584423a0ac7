"""UCI Adult: predict whether a person earns more than 50,000 dollars a year, from the US census of 1994."""

import hashlib
import logging
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.request import urlopen

import pandas
from pandas.api.types import is_numeric_dtype

from trustml_cli.data.table import Columns, Table, TableSource, tabulate
from trustml_cli.data.table_columns import Reading, interpret
from trustml_cli.data.table_file import TextFormat, read_table
from trustml_cli.system.errors import InputError, one_line
from trustml_cli.system.files import write_atomically

log = logging.getLogger(__name__)

HOME = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult"
FILES = {  # with the SHA-256 of UCI's files
    "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}
COLUMNS = [
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
]  # fmt: skip
NUMERIC = ["age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"]
MEANING = Columns(label="income", positive=">50K", sensitive=["race", "sex"])


class AdultSplit(Enum):
    """The choice of the test rows."""

    random = "random"
    """A random share of adult.data."""
    official = "official"
    """The rows of adult.test."""


@dataclass(frozen=True, kw_only=True)
class Adult(TableSource):
    """32,561 + 16,281 people (Kohavi 1996); the favourable label is an income above 50,000 dollars.

    Race and sex are sensitive attributes and not features. Only rows of the given `races` are kept (`all`: every row).
    With `split=random`, the test rows are a share of adult.data. The files are in `data_dir/adult` and are downloaded
    there if absent.
    """

    data_dir: Path
    races: list[str]
    split: AdultSplit

    def read(self, cache_dir: Path) -> Table:
        folder = self.data_dir / "adult"
        if self.split is AdultSplit.official:
            train, test = (self.people(folder / name) for name in FILES)
        else:
            train, test = self.divide(self.people(folder / "adult.data"), MEANING)
        return tabulate(train, test, MEANING, self.bins, source=str(folder), key="dataset.races")

    def people(self, path: Path) -> pandas.DataFrame:
        """The rows of one file whose race is among `races`; raises `InputError` for an unknown race."""
        if not path.is_file():
            download(path)
        frame = read_adult(path)
        known = sorted(set(frame["race"]))
        if self.races == ["all"]:
            return frame
        if unknown := [race for race in self.races if race not in known]:
            raise InputError(f"dataset.races: no race {unknown[0]!r} in {path}; there are all, {', '.join(known)}")
        return frame[frame["race"].isin(self.races)]


def read_adult(path: Path) -> pandas.DataFrame:
    """Read UCI's file: no header; adult.test has a comment in its first line and labels that end with a full stop."""
    frame = interpret(read_table(path, TextFormat(names=COLUMNS, comment="|")).frame, Reading(na_values=["?"]))
    frame["income"] = frame["income"].astype(str).str.removesuffix(".")
    if not set(frame["income"]) <= {"<=50K", ">50K"} or not all(is_numeric_dtype(frame[name]) for name in NUMERIC):
        raise InputError(f"dataset: {path} is not UCI's {path.name}: fifteen columns, the last <=50K or >50K")
    return frame


def download(path: Path) -> None:
    """Download one of the two files from UCI; raises `InputError` where that fails or the checksum differs."""
    url = f"{HOME}/{path.name}"
    log.info("downloading %s", url)
    try:
        with urlopen(url, timeout=30) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != FILES[path.name]:
            raise OSError("what came is not the file; its checksum differs")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda partial: partial.write_bytes(content))
    except OSError as error:  # urllib's errors among them
        raise InputError(
            f"dataset: {path} is absent and could not be downloaded from {url} ({one_line(error)}); put adult.data and "
            "adult.test there, or set data_dir (or TRUSTML_DATA_DIR)"
        ) from error
