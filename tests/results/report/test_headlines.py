"""The headlines of a run: what tells them apart, what they are compared with, the lowest and the highest."""

import base64
import struct
from pathlib import Path

from tests.helpers import leave_run
from trustml_cli.results.aggregate import read_run
from trustml_cli.results.report.headlines import ends, headlines, result
from trustml_cli.results.report.page import PNG, WIDE, wide, write_run

TABLE = """inference,references,auc
loss,0,0.55
shadow,4,0.62
lira,4,
ratio,4,0.58
class_loss,4,0.51
"""
FACTS = {"headline": "auc", "conditions": ["inference", "references"]}


def test_headlines_say_no_more_than_tells_them_apart_and_the_ends_are_named(tmp_path: Path) -> None:
    leave_run(tmp_path / "run", TABLE, **FACTS)
    run = read_run(tmp_path / "run")
    assert [condition for condition, _, _ in headlines(run)] == [
        "inference loss", "inference shadow", "inference ratio", "inference class_loss",
    ]  # fmt: skip
    assert [(condition, cell.text) for condition, cell in ends(run)] == [
        ("inference class_loss", "0.51"), ("inference shadow", "0.62"),
    ]  # fmt: skip
    assert result(run) == "AUC 0.51 (inference class_loss) … 0.62 (inference shadow)"
    page = write_run(run.folder).read_text()
    assert "From <b>0.51</b> (inference class_loss) to <b>0.62</b> (inference shadow)." in page


def test_few_headlines_have_no_ends_and_stand_beside_what_they_are_compared_with(tmp_path: Path) -> None:
    table = "stage,method,lowest_p_rule,accuracy\nbaseline,none,31.34,0.842\ndebiased,adversarial,73.99,0.829\n"
    leave_run(tmp_path / "run", table, headline="lowest_p_rule", conditions=["stage", "method"])
    run = read_run(tmp_path / "run")
    assert [(condition, cell.text, beside) for condition, cell, beside in headlines(run)] == [
        ("stage baseline", "31.3 %", "accuracy 84.2 %"),
        ("stage debiased", "74.0 %", "accuracy 82.9 %"),
    ]
    assert ends(run) == []


def test_pictures_wider_than_half_a_page_are_known_by_their_header() -> None:
    def picture(width: int) -> str:
        header = PNG + struct.pack(">I4sII", 13, b"IHDR", width, 300)
        return f"data:image/png;base64,{base64.b64encode(header).decode()}"

    assert [wide(picture(width)) for width in (WIDE, WIDE + 1)] == [False, True]
