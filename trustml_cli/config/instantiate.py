"""Builds objects from config, with names and types checked before any computation."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, make_dataclass
from keyword import iskeyword
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trustml_cli.config.spellings import number
from trustml_cli.config.trust import FOLDERS, OURS, Permissions
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.user_code import current_directory_first

T = TypeVar("T")
NO_PERMISSIONS = Permissions()
RENAMED = {
    "deviation": ("std",),
    "held_out": ("folds",),
    "images": ("training_images", "monitor_images", "noise_images"),
    "inverse_regularization": ("C",),
    "learning_rate": ("lr",),
    "leave_out": ("drop",),
    "penalty": ("C",),
    "reach": ("rel_path_length",),
    "rivals": ("references",),
    "steps": ("bins",),
}
"""Old names of keys, with their current names (several if they differ between groups)."""


def build(node: DictConfig, key: str, leave: Permissions = NO_PERMISSIONS) -> Any:
    """The object described by the config node at `key`; `leave` says which code beside ours may be used.

    `_target_` names a dataclass whose fields are exactly the other keys; their annotations are the types. A single
    value is accepted for a list of one. A node of nodes that each have a `_target_` is a family: a dictionary of
    objects by name. Raises `InputError` for an unknown or missing key, a wrong type, or a value that the dataclass
    refuses.
    """
    target = node.get("_target_")
    if is_family(node):
        return {name: build(node[name], f"{key}.{name}", leave) for name in map(str, node)}
    if target is None:
        nodes = [name for name in map(str, node) if isinstance(node[name], DictConfig)]
        nameless = [name for name in nodes if "_target_" not in node[name]]
        where = f"{key}.{nameless[0]}" if len(nameless) < len(nodes) and nameless else key
        raise InputError(f"{where}: this choice names no _target_; add the class that it configures")
    leave.refuse_class(f"{key}._target_", str(target))
    try:
        with nullcontext() if target.startswith(f"{OURS}.") else current_directory_first(target):
            cls = get_object(target)
    except Exception as error:  # importing user code may raise anything
        raise InputError(f"{key}._target_: cannot find {target} ({' '.join(str(error).split())})") from error
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise InputError(f"{key}._target_: {target} is not a dataclass")
    leave.refuse_class(f"{key}._target_", f"{cls.__module__}.{cls.__qualname__}")  # not what our modules have imported
    named = [name for name in getattr(cls, "names_code", ()) if node.get(name) is not None]
    functions = {f"{key}.{name}": str(node[name]) for name in named}
    for place, function in functions.items():
        leave.refuse_function(place, function)
    for name in FOLDERS:
        if node.get(name) is not None:
            leave.refuse_folder(f"{key}.{name}", node[name])
    made = build_as(cls, node, key)
    for place, function in functions.items():
        leave.refuse_import(place, function)
    return made


def is_family(node: Any) -> bool:
    """Whether a config node holds nothing but choices of one group by name, possibly none."""
    return isinstance(node, DictConfig) and all(
        not OmegaConf.is_missing(node, name) and isinstance(node[name], DictConfig) and "_target_" in node[name]
        for name in node
    )


def chosen(names: Sequence[str], family: Mapping[str, T], key: str) -> dict[str, T]:
    """The members of `family` called `names`, without duplicates, in that order; `key` is the config key of `names`."""
    if not names:
        raise InputError(f"{key}: needs at least one name; {nearest('', family)}")
    for name in names:
        if name not in family:
            raise InputError(f"{key}: no such choice {name!r}; {nearest(name, family)}")
    return {name: family[name] for name in names}


def build_as(cls: type, node: Mapping[Any, Any], key: str) -> Any:
    """An instance of dataclass `cls` from the values in `node`; `key` is its config key, empty for the top level.

    A key that is a Python keyword sets the field with an underscore appended: `lambda` sets `lambda_`. A field whose
    type has a method `from_file` is read from the file that the value names.
    """
    hints = {as_key(name): hint for name, hint in get_type_hints(cls).items()}
    names = [as_key(field.name) for field in fields(cls)]
    given = [str(name) for name in node if name != "_target_"]
    prefix = f"{key}." if key else ""
    for name in given:
        if name not in names:
            raise InputError(f"{prefix}{name}: no such key; {nearest(name, names)}")
    for name in names:
        if name not in given or (isinstance(node, DictConfig) and OmegaConf.is_missing(node, name)):
            raise InputError(f"{prefix}{name}: needs a value; set it with {prefix}{name}=VALUE")
    values = {field.name: node[as_key(field.name)] for field in fields(cls)}
    readers = {name: reader for name in values if (reader := reader_of(hints[as_key(name)]))}
    types = [(name, Path | None if name in readers else hints[as_key(name)]) for name in values]
    typed = OmegaConf.structured(make_dataclass(cls.__name__, types) if readers else cls)
    arguments = {}
    for name, value in values.items():
        place = prefix + as_key(name)
        try:
            OmegaConf.unsafe_merge(typed, {name: as_given(value, hints[as_key(name)])})  # in place
            arguments[name] = plain(OmegaConf.select(typed, name))
        except ZeroDivisionError as error:
            raise InputError(f"{place}: {value} divides by zero") from error
        except OmegaConfBaseException as error:
            raise InputError(f"{place}: {in_plain_words(first_line(error), place, value)}") from error
    for name, value in arguments.items():
        if isinstance(value, Path) and values[name] == "":  # Path("") is the current directory
            raise InputError(f"{prefix}{as_key(name)}: is empty; give a path")
        if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):  # OmegaConf accepts it
            raise InputError(f"{prefix}{as_key(name)}: must be a list of single values, got {value}")
    for name, reader in readers.items():
        if arguments[name] is not None:
            with prefix_errors(f"{prefix}{as_key(name)}"):
                arguments[name] = reader(arguments[name])
    try:
        with prefix_errors(key):
            return cls(**arguments)
    except OSError as error:  # a path that the file system does not accept
        raise InputError(f"{key}: {error.strerror}: {error.filename}") from error


def reader_of(hint: Any) -> Callable[[Path], Any] | None:
    """The method `from_file` of a field's type, or of an optional one; None if it has none."""
    return next((arg.from_file for arg in (hint, *get_args(hint)) if hasattr(arg, "from_file")), None)


def as_key(field: str) -> str:
    """The config key of a dataclass field: its name, without the trailing underscore that avoids a Python keyword."""
    word = field.removesuffix("_")
    return word if iskeyword(word) else field


def plain(value: Any) -> Any:
    """A config value as plain Python, with ~ in paths expanded."""
    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_object(value)
    return value.expanduser() if isinstance(value, Path) else value


def as_given(value: Any, hint: Any) -> Any:
    """`value`, as a list of one if the type hint is a list, and as a number if it is a fraction and the hint float."""
    parts = (hint, *get_args(hint))
    wants_list = any(get_origin(part) is list for part in parts)
    values = value if isinstance(value, ListConfig) else [value]
    if float in (*parts, *(inner for part in parts for inner in get_args(part))):
        values = [number(one) for one in values]
    return values if isinstance(value, ListConfig) or (wants_list and value is not None) else values[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean epsilon?', or all known names; for a key that was renamed, its new name."""
    known = list(known)
    if new := set(RENAMED.get(name, ())) & set(known):
        return f"it is called {min(new)} now"
    small = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), small, n=1, cutoff=0.6)
    return f"did you mean {small[close[0]]!r}?" if close else f"there are {', '.join(known) or 'none here'}"


def in_plain_words(text: str, key: str, given: Any) -> str:
    """OmegaConf's error about the type of the value `given` at `key`, rephrased for users."""
    wanted = {"Float": "a number", "Integer": "a whole number", "bool": "true or false"}
    match = re.match(r"Value '(.*)' (?:of type '.*' could not be converted to|is not a valid) (\w+)", text)
    if match and match[2] in wanted:
        return f"must be {wanted[match[2]]}, got {match[1]!r}"
    if match := re.match(
        r"Value '(.*)' of type '\w+' is incompatible with type hint '.*Union\[(int, str|str, int)\]", text
    ):
        value = match[1].lower() if match[1] in ("True", "False") else match[1]
        quoted = f'["{value}"]' if isinstance(given, ListConfig) else f'"{value}"'
        return f"must be a whole number or text, got {value}; text is written with quotes: '{key}={quoted}'"
    return text


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
