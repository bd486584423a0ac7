"""Who beside the user may change what is in a folder: nobody may where results depend on it."""

import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from trustml_cli.system.errors import InputError

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_folder(folder: Path) -> None:
    """Make the folder and those above it that are absent; nobody else can write to them, whatever the umask."""
    for path in reversed([folder, *folder.parents]):
        if not path.exists():
            path.mkdir(mode=0o755, exist_ok=True)


def require_own(folder: Path, shared: bool = False) -> None:
    """Raise `InputError` if others than the user and root can change what is in `folder`, be it there at all.

    `shared` folders may be like /tmp, where everybody can make files but nobody can touch another's (sticky).
    """
    try:
        status = folder.stat()
    except OSError:
        return
    whose = changed_by(status, shared)
    if whose is not None:
        who, remedy = whose
        raise InputError(
            f"cache_dir: {who} can write to {folder}, and so replace models and data in it; "
            f"{remedy.format(folder)}, or take another with cache_dir=DIR or TRUSTML_CACHE_DIR"
        )


def changed_by(status: os.stat_result, shared: bool = False) -> tuple[str, str] | None:
    """Who beside the user and root can change a file or folder, and what to do about it; None if nobody can."""
    if status.st_uid not in (os.geteuid(), 0):
        return f"{name_of_user(status.st_uid)}, its owner,", "have it made yours (chown -R)"
    sticky = shared and status.st_mode & stat.S_ISVTX
    if sticky or not status.st_mode & OTHERS_WRITE:
        return None
    if status.st_mode & stat.S_IWOTH:
        return "everybody", "chmod -R go-w {}"
    if is_private(status.st_gid):
        return None
    return f"group {name_of_group(status.st_gid)}", "chmod -R g-w {}"


def is_private(group: int) -> bool:
    """Whether a group is the user's own and holds nobody else, as Debian and Red Hat give one to each user."""
    try:
        entry, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except KeyError:  # a container may run under a number without a name
        return group == os.getegid() == os.geteuid()
    return entry.gr_name == user.pw_name and set(entry.gr_mem) <= {user.pw_name}


def name_of_user(number: int) -> str:
    """The name of a user, or the number where there is none."""
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"user {number}"


def name_of_group(number: int) -> str:
    """The name of a group, or the number where there is none."""
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)
