"""The distribution that this package is installed from: its name on the package index, its version and its extras."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from trustml_cli.system.errors import InputError, one_line

DISTRIBUTION = "trustml-cli"  # "trustml" on the index is another project


def own_version() -> str:
    """The version of the installed distribution."""
    return version(DISTRIBUTION)


def install_command(extra: str) -> str:
    """The command that installs this package with one of its extras."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Turn an ImportError inside into an `InputError` that says how to install the `extra` that `what` needs."""
    try:
        yield
    except ImportError as error:
        why = f"needs the extra {extra} ({one_line(error)}); install it with: {install_command(extra)}"
        raise InputError(f"{what}: {why}") from error
