"""Who beside the user can change a folder: by its owner, its mode, its group and who is in that."""

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trustml_cli.system.errors import InputError
from trustml_cli.system.owners import changed_by, require_own

ME = 1000
USERS = {ME: "ada", 1001: "eve"}
GROUPS = {ME: ("ada", []), 100: ("users", []), 1001: ("ada", ["eve"]), 1002: ("ada", ["ada"])}


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One of two users, with a group of her own."""

    def user(number: int) -> Any:
        return SimpleNamespace(pw_name=USERS[number])

    def group(number: int) -> Any:
        return SimpleNamespace(gr_name=GROUPS[number][0], gr_mem=GROUPS[number][1])

    monkeypatch.setattr(os, "geteuid", lambda: ME)
    monkeypatch.setattr(os, "getegid", lambda: ME)
    monkeypatch.setattr(pwd, "getpwuid", user)
    monkeypatch.setattr(grp, "getgrgid", group)
    return monkeypatch


@pytest.mark.parametrize(
    ("mode", "owner", "group", "who"),
    [
        (0o755, ME, 100, None),
        (0o755, 0, 100, None),
        (0o755, 1001, ME, "eve, its owner,"),
        (0o700, 4711, ME, "user 4711, its owner,"),
        (0o777, ME, ME, "everybody"),
        (0o775, ME, ME, None),  # Debian's umask 002 and a group for each user
        (0o775, ME, 1002, None),
        (0o775, ME, 1001, "group ada"),  # in which she is not alone
        (0o775, ME, 100, "group users"),
        (0o2775, 0, 4711, "group 4711"),
    ],
)
def test_who_can_change_a_folder(mode: int, owner: int, group: int, who: str | None, ada: pytest.MonkeyPatch) -> None:
    found = changed_by(os.stat_result((mode, 0, 0, 1, owner, group, 0, 0, 0, 0)))
    assert (found and found[0]) == who


def test_a_number_without_a_name_has_a_group_of_its_own_where_that_has_the_same_number(ada: pytest.MonkeyPatch) -> None:
    for own in (4711, ME):
        ada.setattr(os, "geteuid", lambda: 4711)
        ada.setattr(os, "getegid", lambda own=own: own)
        found = changed_by(os.stat_result((0o775, 0, 0, 1, 4711, own, 0, 0, 0, 0)))
        assert (found is None) == (own == 4711)


def test_a_folder_for_all_is_enough_for_what_others_cannot_touch(tmp_path: Path) -> None:
    require_own(tmp_path / "absent")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    require_own(tmp_path / "shared", shared=True)
    (tmp_path / "shared").chmod(0o777)
    words = (
        f"^cache_dir: everybody can write to {tmp_path}/shared, .*; chmod -R go-w {tmp_path}/shared, or take another"
    )
    with pytest.raises(InputError, match=words):
        require_own(tmp_path / "shared", shared=True)
