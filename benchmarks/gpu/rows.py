"""Figures: what a part measures, and the file in which it leaves them."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A figure: what was measured, its value with its unit, how many measurements it is of, and whether a check holds.

    `holds` is None for a figure that is not checked.
    """

    what: str
    value: float | None = None
    unit: str = ""
    n: int | None = None
    note: str = ""
    holds: bool | None = None

    def __str__(self) -> str:
        value = "" if self.value is None else f": {self.value:,.5g} {self.unit}".rstrip()
        n = "" if self.n is None else f", n = {self.n}"
        check = "" if self.holds is None else (", as it must be" if self.holds else ", AND MUST NOT BE")
        return f"{self.what}{value}{n}{check}{f' ({self.note})' if self.note else ''}"


def figures_file(work: Path, part: str) -> Path:
    """Where a part leaves its figures, one as JSON in each line."""
    return work / f"{part}.jsonl"


def figures(work: Path, part: str) -> list[Row]:
    """The figures that a part has measured so far."""
    file = figures_file(work, part)
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []  # the last one may be cut off
    return [Row(**json.loads(line)) for line in lines]
