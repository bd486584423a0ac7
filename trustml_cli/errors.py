"""The two ways in which a run may end badly; `run.main` turns them into exit statuses."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """The command, a config or an input is wrong (exit 2). The message is one line and says what would be right."""


class RunFailed(Exception):
    """The run failed after computing began, e.g. the loss became NaN (exit 1)."""


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Turn a ValueError from inside into an InputError that names the config key.

    Methods know their own fields only: `epsilon: must be …` becomes `task.epsilon: must be …`.
    """
    try:
        yield
    except ValueError as error:
        text = " ".join(str(error).split())
        names_a_field = re.match(r"\w+: ", text) is not None
        raise InputError(".".join(filter(None, (key, text))) if names_a_field else f"{key}: {text}") from error
