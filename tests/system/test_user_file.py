"""Files of strangers: what is no regular file is never opened, and none is read beyond its limit."""

import os
import socket
from pathlib import Path

import pytest

from trustml_cli.system.user_file import opened, read_bytes, read_text, read_yaml


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def endpoint(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def without_end(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pipe, "is a named pipe, not a regular file"),
        (link_to_a_device, "is a device, not a regular file"),
        (endpoint, "is a socket, not a regular file"),
        (Path.mkdir, "is a folder, not a regular file"),
        (without_end, "holds 1,099,511,627,776 bytes; 10 at most are read"),
    ],
)
def test_what_would_block_or_has_no_end_is_refused(
    make: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    assert callable(make)
    make(Path("file"))
    with pytest.raises(OSError, match=message) as caught:
        read_bytes(Path("file"), limit=10)
    assert caught.value.filename == "file"


def test_a_pipe_that_takes_the_place_of_a_file_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(tmp_path / "file")
    (tmp_path / "regular").touch()
    status = (tmp_path / "regular").stat()
    monkeypatch.setattr(Path, "stat", lambda path, **how: status)  # as it was a moment ago
    with pytest.raises(OSError, match="is a named pipe"), opened(tmp_path / "file"):
        pass


def test_links_lead_nowhere_out_of_their_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("theirs")
    run = tmp_path / "run"
    (run / "plots").mkdir(parents=True)
    (run / "own").write_text("ours")
    (run / "plots" / "link").symlink_to("../own")
    (run / "plots" / "out").symlink_to("../../secret")
    (run / "up").symlink_to("..")
    assert read_text(run / "plots" / "link", 100, inside=run) == "ours"
    for path in (run / "plots" / "out", run / "up" / "secret"):
        assert read_text(path, 100) == "theirs"
        with pytest.raises(OSError, match="is a link that leads out of"):
            read_text(path, 100, inside=run)


@pytest.mark.parametrize("path", ["/proc/self/status"])
def test_a_file_that_does_not_tell_its_size_is_read_up_to_the_limit(path: str) -> None:
    if not Path(path).exists():
        pytest.skip("no /proc")
    with pytest.raises(OSError, match="holds more than 10 bytes"):
        read_bytes(Path(path), limit=10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1]\nb: *a\n", "alias"),
        ("a: &a\n  b: *a\n", "alias"),
        ("[" * 51 + "]" * 51, "nested more than 50 deep"),
        ("[" * 100_000, "nested more than 50 deep|is no YAML"),
        ("a: [\n", "is no YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "is no YAML"),
    ],
)
def test_yaml_that_grows_or_names_code_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_yaml(text)


def test_yaml_is_read_as_it_is() -> None:
    assert read_yaml("a: {b: [1, 2.5, null, 'x * & y']}\n") == {"a": {"b": [1, 2.5, None, "x * & y"]}}
    assert read_yaml("") is None
