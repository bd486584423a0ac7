"""What a configuration may set and run. Every value has one of three sources, with different permissions.

The user: the words of the command line only. We: the YAML of this package, of Hydra and of its installed plugins. A
stranger (third party): any other file, whether below --config-dir or hydra.searchpath, or the multirun.yaml of a
resumed sweep. A stranger may set whatever is measured. Only the user may set which code is run, where output is written
or sent, and which environment variables are read.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins

from trustml_cli.system.errors import InputError

OURS = __name__.partition(".")[0]
FOLDERS = ("output_dir", "cache_dir", "data_dir")  # keys of folders to write to, at the top or in a part
MACHINERY = ("hydra", "launcher")  # what allow=[hydra] permits a file to set
USERS = ("allow", "resume", "tracker", *FOLDERS, *MACHINERY)  # keys and groups that only the user may set
VARIABLES = ("TRUSTML_", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS")  # environment variables that a file may read
LOGGING = r"logging\.(handlers\.)?[A-Z]\w*|ext://sys\.std(out|err)"  # classes and streams that a logging config may use


def refuse(key: str, name: str, known: Sequence[str]) -> None:
    """Raise `InputError` for the `name` of code unless it, or a package that contains it, is in `known`."""
    if not any(re.match(rf"{re.escape(package)}(?![^.:])", name) for package in known):
        package = re.split(r"[.:]", name)[0]
        what = "is not for a file to name" if package == OURS else "is no code of trustml's"
        leave = name if package in (OURS, "hydra") else package  # allow=[hydra] concerns files, see MACHINERY
        raise InputError(f"{key}: {name} {what}; if you trust it, add allow=[{leave}] to the command")


@dataclass(frozen=True)
class Permissions:
    """The permissions that the command line `words` and the top-level `folders` give to files."""

    words: Sequence[str] = ()
    folders: Sequence[Path] = ()

    def refuse_class(self, key: str, name: str) -> None:
        """Raise `InputError` for a class, named in a config or found by that name, that is not ours or allowed."""
        refuse(key, name, [OURS, *packages(self.words)])

    def refuse_function(self, key: str, name: str) -> None:
        """Raise `InputError` for package.module:function, ours too, unless it was typed or its package is allowed."""
        refuse(key, name, [*typed_values(self.words, r"[\w.]+\.factory"), *packages(self.words)])

    def refuse_import(self, key: str, name: str) -> None:
        """The same for what an allowed module has itself imported from elsewhere, unless the user typed its name."""
        module, _, function = name.partition(":")
        found: Any = getattr(sys.modules.get(module), function, None)
        if name not in typed_values(self.words, r"[\w.]+\.factory") and hasattr(found, "__qualname__"):
            refuse(key, f"{found.__module__}.{found.__qualname__}", packages(self.words))

    def refuse_folder(self, key: str, value: Any) -> None:
        """Raise `InputError` for an output folder unless its key was typed or it lies in one of our `folders`."""
        folder = Path(str(value)).expanduser().resolve()
        if not typed_values(self.words, re.escape(key)) and not any(
            folder.is_relative_to(one.expanduser().resolve()) for one in self.folders
        ):
            raise InputError(f"{key}: {value} is not for a file to choose; give {key} on the command line")


def typed_values(words: Sequence[str], key: str) -> list[str]:
    """The values that command-line overrides give to keys that match `key`; a single value is a list of one."""
    values = [word.value() for word in parsed(tuple(words)) if re.fullmatch(key, word.key_or_group)]
    return [str(one) for value in values for one in (value if isinstance(value, list) else [value])]


def packages(words: Sequence[str]) -> list[str]:
    """The packages beside ours whose code the command line allows; `hydra` in `allow` concerns files instead."""
    return [name for name in typed_values(words, "allow") if name != "hydra"]


@cache
def parsed(words: tuple[str, ...]) -> list[Override]:
    """The overrides in a command line, parsed; raises Hydra's error for a word that is no override."""
    return OverridesParser.create().parse_overrides(list(words))


def is_the_users(word: Override) -> bool:
    """Whether an override sets something that only the user may set."""
    places = [word.key_or_group, *([word.package] if word.package else [])]
    parts = [re.split(r"[./]", place.removeprefix("_global_.")) for place in places]
    return (
        any(part[0] in USERS for part in parts)
        or parts[0][-1] in ("factory", *FOLDERS)
        or any(not readable(name, ()) for name in variables([word.input_line or ""]))
    )


def variables(words: Iterable[str]) -> list[str]:
    """The environment variables that words of the command line refer to by name."""
    return [name for word in words for name in re.findall(r"oc\.env\s*:\s*[\"']?(\w+)", word)]


def readable(name: str, words: Iterable[str]) -> bool:
    """Whether a configuration may read an environment variable: trustml's own, and those that the user typed."""
    return name.startswith(VARIABLES[0]) or name in VARIABLES or name in variables(words)


def code(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every name of code in a config of Hydra or of Python's logging, with its key."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, str) and (name in ("_target_", "()", "class") or value.startswith("ext://")):
                yield f"{key}.{name}", value
            else:
                yield from code(value, f"{key}.{name}")


def refuse_code(node: Any, key: str, allow: Sequence[str]) -> None:
    """Raise `InputError` if a part of Hydra's config (plain Python) names code that is neither a plugin nor allowed."""
    plugins = (f"{OURS}.sweeps.callback.SweepCallback", *Plugins.instance().class_name_to_class)
    for place, name in code(node, key):
        if name not in plugins and not re.fullmatch(LOGGING, name):
            refuse(place, name.removeprefix("ext://"), [*allow, *plugins])
