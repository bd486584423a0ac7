import errno
import json
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.processes import at_once, wait_until
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import (
    digest,
    file_digest,
    file_name,
    is_in_use,
    make_once,
    mark_in_use,
    stamp,
    write_atomically,
    write_json,
)
from trustml_cli.system.locks import locked

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of "abc", FIPS 180-2
NAMES = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,4}){0,2}", fullmatch=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(name=NAMES, old=st.none() | st.binary(), new=st.binary(), fails=st.booleans())
def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, name, old, new, fails):
    path = tmp_path / name
    path.unlink(missing_ok=True) if old is None else path.write_bytes(old)
    before = sorted(tmp_path.iterdir())

    def write(partial):
        partial.write_bytes(new)
        assert partial.parent == path.parent
        assert partial.suffix == path.suffix
        assert (path.read_bytes() if path.exists() else None) == old
        if fails:
            raise OSError("disk full")

    if fails:
        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, write)
        assert sorted(tmp_path.iterdir()) == before
        assert (path.read_bytes() if path.exists() else None) == old
    else:
        write_atomically(path, write)
        assert path.read_bytes() == new
        assert set(tmp_path.iterdir()) == {*before, path}


@pytest.mark.parametrize("content", [{"b": [1, 2.5, None], "a": "naïve 8×8"}, [], "caf\udce9.png"])
def test_json_comes_back_as_it_was(tmp_path, content):
    write_json(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == content


def test_json_is_made_to_be_read_by_people(tmp_path):
    write_json(tmp_path / "x.json", {"size": "8×8", "path": tmp_path})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == f'{{\n  "size": "8×8",\n  "path": "{tmp_path}"\n}}\n'


def test_a_digest_depends_on_content_but_not_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(x) for x in ({"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1], "1", 1)}) == 7
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # SHA-256 of "{}"


def test_names_of_files_that_had_to_be_changed_are_told_apart():
    assert file_name("seed=0,task.epsilon=0.1") == "seed=0,task.epsilon=0.1"
    texts = [
        "a/b",
        "a_b",
        "a b",
        "a[b",
        200 * "a",
        201 * "a",
        f"{150 * 'a'}/b",
        "",
        ".",
        "..",
        "../a",
        ".a",
        "_a",
        "\udce9",
    ]
    names = {file_name(text) for text in texts}
    assert len(names) == len(texts)
    assert all(0 < len(name.encode()) <= 150 and "/" not in name and name[0] != "." for name in names)


def test_a_file_digest_is_the_published_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == ABC


def test_a_stamp_changes_with_size_time_and_place(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    os.utime(path, ns=(0, 5))
    assert stamp(path)[:3] == (str(path), 3, 5)
    os.utime(path, ns=(0, 6))
    assert stamp(path)[:3] == (str(path), 3, 6)


def test_files_that_trade_places_change_their_stamps_though_size_and_time_stay(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for path, content in ((one, b"abc"), (two, b"abd")):
        path.write_bytes(content)
        os.utime(path, ns=(0, 5))
    before = stamp(one)
    one.rename(tmp_path / "kept")
    two.rename(one)
    assert stamp(one)[:3] == before[:3]
    assert stamp(one) != before


def fill_with_abc(folder):
    (folder / "x").write_bytes(b"abc")
    (folder / "y").write_bytes(b"")


def refuse(folder):
    raise AssertionError("made again")


def test_a_folder_is_made_once(tmp_path):
    checksums = make_once(tmp_path / "deep" / "folder", fill_with_abc)
    assert checksums["x"] == ABC
    assert sorted(checksums) == ["x", "y"]
    assert make_once(tmp_path / "deep" / "folder", refuse) == checksums


def test_a_folder_takes_its_name_in_one_step_when_it_is_whole(tmp_path):
    folder, made = tmp_path / "folder", []

    def make(partial):
        fill_with_abc(partial)
        made.append(partial.stat().st_ino)
        assert not folder.exists()

    make_once(folder, make)
    assert [folder.stat().st_ino] == made, "it is another one"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "x").write_bytes(b"abd"), "x"),
        (lambda folder: (folder / "y").unlink(), "y"),
        (lambda folder: (folder / "checksums.json").unlink(), "checksums.json"),
        (lambda folder: (folder / "checksums.json").write_text('{"x": '), "folder"),
        (lambda folder: (folder / "checksums.json").write_text("[]"), "folder"),
        (lambda folder: (folder / "checksums.json").write_text("{}"), "x, y"),
        (lambda folder: (folder / "checksums.json").write_text(""), "folder"),
        (lambda folder: (folder / "z").write_text("more"), "z"),
        (lambda folder: (folder / "y").chmod(0o666), "y"),
        (lambda folder: [(folder / "y").unlink(), os.mkfifo(folder / "y")], "y"),
        (
            lambda folder: [(folder / "x").rename(folder.parent / "x"), (folder / "x").symlink_to(folder.parent / "x")],
            "x",
        ),
        (lambda folder: [(folder / "checksums.json").unlink(), os.mkfifo(folder / "checksums.json")], "checksums"),
    ],
    ids=[
        "changed",
        "missing",
        "no checksums",
        "half the checksums",
        "other checksums",
        "none",
        "empty",
        "more",
        "open to all",
        "pipe",
        "link",
        "checksums are a pipe",
    ],
)
def test_a_damaged_folder_is_made_again_with_a_warning(tmp_path, caplog, damage, named):
    folder = tmp_path / "folder"
    checksums = make_once(folder, fill_with_abc)
    damage(folder)
    with caplog.at_level(logging.WARNING):
        assert make_once(folder, fill_with_abc) == checksums
    assert "is damaged" in caplog.text
    assert named in caplog.text
    assert (folder / "x").read_bytes() == b"abc"
    assert make_once(folder, refuse) == checksums


def test_a_maker_that_fails_leaves_nothing_behind(tmp_path):
    def fail(folder):
        fill_with_abc(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_once(tmp_path / "folder", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert make_once(tmp_path / "folder", fill_with_abc)["x"] == ABC


def test_of_many_threads_at_once_one_makes_the_folder(tmp_path, caplog):
    calls = []

    def make(folder):
        calls.append(folder)
        wait_until(lambda: caplog.text.count("waiting for another process") + len(calls) == 4)
        fill_with_abc(folder)

    with caplog.at_level(logging.INFO), ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: make_once(tmp_path / "folder", make), range(4)))
    assert len(calls) == 1
    assert all(result["x"] == ABC for result in results)


def test_who_waits_for_another_process_says_so(tmp_path, caplog):
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "folder.lock"):
            waiting = pool.submit(make_once, tmp_path / "folder", fill_with_abc)
            wait_until(lambda: waiting.done() or "waiting for another process" in caplog.text)
            assert not waiting.done()
            assert not (tmp_path / "folder").exists()
        assert waiting.result()["x"] == ABC


@pytest.mark.e2e
def test_the_lock_of_who_was_killed_blocks_nobody_and_the_remains_are_cleared(tmp_path, caplog):
    folder = tmp_path / "model [1]"  # brackets mean something to glob

    def make(partial):
        (partial / "half").write_text("ha")
        os.kill(os.getpid(), signal.SIGKILL)

    assert at_once(lambda: make_once(folder, make)) == [-signal.SIGKILL]
    assert [path.name for path in tmp_path.glob(".*/*")] == ["half"]
    (tmp_path / ".model [1]").mkdir()  # not ours
    with caplog.at_level(logging.INFO):
        make_once(folder, fill_with_abc)
    assert caplog.text == "", "it waited"
    assert {path.name for path in folder.iterdir()} == {"x", "y", "checksums.json"}
    assert [path.name for path in tmp_path.glob(".*")] == [".model [1]"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("function", "number", "why"),
    [
        ("os.open", errno.EROFS, r"cannot be written to \(Read-only file system\)"),
        ("fcntl.flock", errno.ENOLCK, r"has a file system without locks \(No locks available\)"),
        ("fcntl.flock", errno.EOPNOTSUPP, r"has a file system without locks \(Operation not supported\)"),
        ("fcntl.flock", errno.ENOSYS, r"has a file system without locks \(Function not implemented\)"),
        ("fcntl.flock", errno.EIO, r"has a file system without locks \(Input/output error\)"),
    ],
)
def test_where_nothing_can_be_written_or_locked_a_whole_folder_is_read_and_no_other(
    tmp_path, monkeypatch, whole, function, number, why
):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    checksums = make_once(tmp_path / "folder", fill_with_abc)
    if not whole:
        (tmp_path / "folder" / "x").write_bytes(b"abd")
    monkeypatch.setattr(f"trustml_cli.system.locks.{function}", fail)
    if whole:
        assert make_once(tmp_path / "folder", refuse) == checksums
    else:
        with pytest.raises(InputError, match=f"^cache_dir: {tmp_path} {why}; use another with cache_dir=DIR or TRUST"):
            make_once(tmp_path / "folder", fill_with_abc)
        assert (tmp_path / "folder" / "x").read_bytes() == b"abd"


def test_what_is_made_can_be_written_to_by_nobody_else_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        make_once(tmp_path / "deep" / "er" / "folder", fill_with_abc)
    finally:
        os.umask(before)
    made = list((tmp_path / "deep").rglob("*"))
    assert len(made) == 6
    assert [path for path in (tmp_path / "deep", *made) if path.stat().st_mode & 0o022] == []


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_nothing_is_taken_from_where_others_can_write(tmp_path, mode):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(InputError, match=rf"^cache_dir: everybody can write to {tmp_path}/open, .*; chmod -R go-w "):
        make_once(tmp_path / "open" / "folder", refuse)
    assert list((tmp_path / "open").iterdir()) == []


@pytest.mark.e2e
def test_a_folder_is_held_as_long_as_somebody_is_at_work_in_it_however_that_ends(tmp_path):
    assert not is_in_use(tmp_path)
    with mark_in_use(tmp_path):
        assert is_in_use(tmp_path)
        with mark_in_use(tmp_path):
            assert is_in_use(tmp_path)
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)

    def work():
        with mark_in_use(tmp_path):
            assert is_in_use(tmp_path)
            os.kill(os.getpid(), signal.SIGKILL)

    assert at_once(work) == [-signal.SIGKILL]
    assert not is_in_use(tmp_path)
    assert not is_in_use(tmp_path / "gone")
