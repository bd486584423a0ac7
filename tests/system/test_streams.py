"""Standard streams that are full, closed or read by nobody, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAYS = """
import os, sys
from trustml_cli.system.streams import forgive_streams, lost_output
forgive_streams()
with open("taken", "w") as file:
    assert file.fileno() > 2, file.fileno()
print("gr\\u00fc\\u00df \\udcfc", flush=True)
print("error", file=sys.stderr)
with open("why", "w") as file:
    file.write(str(lost_output()))
sys.exit(7)
"""


def said(folder: Path, redirected: str, locale: str = "C.UTF-8") -> tuple[bytes, bytes, str]:
    """What a process with such streams says, and what it knows to be lost; it ends with 7 and no other words."""
    environment = {**os.environ, "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    answer = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirected}', sys.executable, SAYS],
        cwd=folder, env=environment, capture_output=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 7, answer.stderr
    return answer.stdout, answer.stderr, (folder / "why").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_streams_lose_words_and_nothing_else(tmp_path: Path) -> None:
    assert said(tmp_path, ">/dev/full") == (b"", b"error\n", "No space left on device")
    assert said(tmp_path, "2>/dev/full")[2] == "None"
    assert said(tmp_path, ">/dev/full 2>/dev/full")[:2] == (b"", b"")


def test_closed_streams_lose_words_and_no_file_takes_their_place(tmp_path: Path) -> None:
    assert said(tmp_path, "<&- >&- 2>&-") == (b"", b"", "None")
    assert (tmp_path / "taken").read_bytes() == b""


def test_a_reader_who_has_seen_enough_misses_nothing(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as unread:
        answer = subprocess.run(
            [sys.executable, "-c", SAYS], cwd=tmp_path, stdout=unread, stderr=subprocess.PIPE, check=False
        )
    assert (answer.returncode, answer.stderr, (tmp_path / "why").read_text()) == (7, b"error\n", "None")


def test_what_a_stream_has_no_letters_for_is_spelt_out(tmp_path: Path) -> None:
    assert said(tmp_path, "")[0] == "grüß \\udcfc\n".encode()
    assert said(tmp_path, "", locale="C")[0] == b"gr\\xfc\\xdf \\udcfc\n"
