"""File permissions: folders that results depend on must not be writable by other users."""

import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from trustml_cli.system.errors import InputError

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_folder(folder: Path) -> None:
    """Create the folder and its missing parents, writable by the user only, whatever the umask."""
    for path in reversed([folder, *folder.parents]):
        if not path.exists():
            path.mkdir(mode=0o755, exist_ok=True)


def require_own(folder: Path, shared: bool = False) -> None:
    """Raise `InputError` if users other than the current one and root can change the content of `folder`, if it exists.

    A `shared` folder may be like /tmp, where all users can create files but not change each other's (sticky bit).
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
    """Which other user or group can change a file or folder, and the remedy; None if only the user and root can."""
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
    """Whether a group is the user's private group without other members, the default on Debian and Red Hat."""
    try:
        entry, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except KeyError:  # in a container the group id may have no name
        return group == os.getegid() == os.geteuid()
    return entry.gr_name == user.pw_name and set(entry.gr_mem) <= {user.pw_name}


def name_of_user(number: int) -> str:
    """The name of a user, or the user id where it has no name."""
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"user {number}"


def name_of_group(number: int) -> str:
    """The name of a group, or the group id where it has no name."""
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)
