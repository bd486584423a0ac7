"""The facts in a run's run.json, read with all types checked."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from trustml_cli.config.groups import flat
from trustml_cli.privacy.promise import SYSTEM_NOISE
from trustml_cli.system.errors import one_line, short
from trustml_cli.system.user_file import MB, read_text, read_yaml

LARGEST = 4 * MB  # maximum size in bytes of a run.json
LARGEST_CONFIG = MB  # maximum size in bytes of a config.yaml
LONGEST = 100_000  # maximum length of a text in it, in characters
LARGEST_FLOAT = sys.float_info.max
DEEPEST = 50  # maximum nesting of lists and mappings in it
ENDINGS = ("running", "completed", "failed")
UNREADABLE = "unreadable"

Check = Mapping[str, Any]
"""A condition that a result must satisfy to be trusted: `name`, `passed` (true, false or null) and `figure`."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts in a run.json by name; missing ones are None or empty. `others` holds facts with unknown names."""

    status: str = "running"
    error: str | None = None
    exit_code: int | None = None
    task: str | None = None
    dataset: str | None = None
    model: str | None = None
    seed: int | float | str | None = None
    """An integer, except in a run that was refused because its seed is not one."""
    started: str = ""
    seconds: float | None = None
    device: str | None = None
    headline: str | None = None
    verdict: str | None = None
    trustml: str | None = None
    python: str | None = None
    git_commit: str | None = None
    command: Sequence[str] = ("trustml",)
    conditions: Sequence[str] = ()
    better: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    peak_memory_mb: Mapping[str, float] = field(default_factory=dict)
    changed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The `default` and the `value` of each changed key."""
    checks: Sequence[Check] = ()
    remarks: Sequence[str] = ()
    """What has to be known about the networks and the figures."""
    notes: Sequence[str] = ()
    """Caveats about the data for comparisons of results."""
    others: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """The fact with this name, known or not; None if there is none."""
        return getattr(self, name) if name in NAMES else self.others.get(name)

    @property
    def repeatable(self) -> bool:
        """Whether another run with the same seed gives the same numbers."""
        return not any(check.get("name") == SYSTEM_NOISE and check.get("passed") for check in self.checks)

    @property
    def known(self) -> dict[str, Any]:
        """All facts that are present, by name."""
        own = {name: getattr(self, name) for name in NAMES}
        return {**self.others, **{name: value for name, value in own.items() if value not in (None, "", (), {})}}


NAMES = tuple(one.name for one in fields(RunFacts) if one.name not in ("others", "notes"))


def read_facts(folder: Path) -> RunFacts:
    """The facts of the run in this directory; none if it was killed while it claimed the directory.

    Never raises: for a run.json that cannot be read, or that holds a value of a wrong type, the status is `unreadable`
    and the error gives the reason.
    """
    try:
        text = read_text(folder / "run.json", LARGEST, inside=folder)
    except FileNotFoundError as error:
        return RunFacts() if not (folder / "run.json").is_symlink() else unreadable(error)
    except (OSError, ValueError) as error:
        return unreadable(error)
    try:
        return facts_of(json.loads(text)) if text else RunFacts()
    except RecursionError:
        return unreadable(ValueError("is nested too deep"))
    except ValueError as error:
        return unreadable(error)


def unreadable(error: Exception) -> RunFacts:
    """The facts of a run whose run.json cannot be read."""
    return RunFacts(status=UNREADABLE, error=f"run.json: {one_line(error)}")


def config_in(folder: Path) -> dict[str, Any]:
    """The values of the config.yaml in a run's directory by dotted key; none if it is absent or cannot be read."""
    try:
        content = read_yaml(read_text(folder / "config.yaml", LARGEST_CONFIG, inside=folder))
    except (OSError, ValueError):
        return {}
    return {str(key): value for key, value in flat(content).items()} if isinstance(content, dict) else {}


def facts_of(content: Any) -> RunFacts:
    """Parse the content of a run.json. Raises ValueError for a value of a wrong type."""
    if not isinstance(content, dict):
        raise ValueError(f"must be a mapping, got {short(content)}")
    check(content, "", 0)
    content = {name: value for name, value in content.items() if value is not None}
    data = content.get("data")
    notes = content.pop("notes", data.get("notes", []) if isinstance(data, dict) else [])
    values = {name: typed(name, content.pop(name), READ[name]) for name in NAMES if name in content}
    if values.get("status", "running") not in ENDINGS:
        raise ValueError(f"status: must be one of {', '.join(ENDINGS)}, got {short(values['status'])}")
    return RunFacts(**values, notes=typed("data.notes", notes, texts), others=content)


def check(value: Any, name: str, depth: int) -> None:
    """Raise ValueError for a JSON value that is nested too deeply, or that contains a text that is too long."""
    if depth > DEEPEST:
        raise ValueError("is nested too deep")
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            check(key, name, depth + 1)
            check(item, f"{name}.{key}".strip("."), depth + 1)
    elif isinstance(value, str) and len(value) > LONGEST:
        raise ValueError(f"{short(name)}: has {len(value):,} characters; {LONGEST:,} at most are read")


def typed(name: str, value: Any, read: Callable[[Any], Any]) -> Any:
    """`read(value)`; errors are prefixed with the name."""
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}, got {short(value)}") from error


def of_type(kind: type | tuple[type, ...], words: str) -> Callable[[Any], Any]:
    """A reader of values of type `kind`, called `words` in errors; booleans are not numbers."""

    def read(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"must be {words}")
        return value

    return read


text, number_or_text = of_type(str, "a text"), of_type((int, float, str), "a number or a text")


def status(value: Any) -> int:
    """The exit status of a process."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 256:
        raise ValueError("must be 0 to 255")
    return value


def number(value: Any) -> int | float:
    """Read a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not -LARGEST_FLOAT <= value <= LARGEST_FLOAT:
        raise ValueError("must be a number")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Read a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def names(value: Any) -> tuple[str, ...]:
    """Read a list of distinct texts."""
    return tuple(dict.fromkeys(texts(value)))


def command(value: Any) -> tuple[str, ...]:
    """Read a list of words, the first of which is the program."""
    if not (words := texts(value)):
        raise ValueError("must be a list of words")
    return words


def mapping_of(read: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """A reader of mappings from names to values that `read` accepts."""

    def whole_mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("must be a mapping")
        return {name: typed(name, item, read) for name, item in value.items()}

    return whole_mapping


def change(value: Any) -> dict[str, Any]:
    """Read the default and the current value of a changed key."""
    if not isinstance(value, dict) or not {"default", "value"} <= value.keys():
        raise ValueError("must have a default and a value")
    return {"default": value["default"], "value": value["value"]}


def checks(value: Any) -> tuple[Check, ...]:
    """Read the list of checks."""
    if not isinstance(value, list):
        raise ValueError("must be a list")
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("passed"), bool | None):
            raise ValueError("must each have a name, passed (true, false or null) and a figure")
        if not isinstance(item.get("name"), str) or not isinstance(item.get("figure"), str):
            raise ValueError("must each have a name, passed (true, false or null) and a figure")
    return tuple(value)


READ: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("status", "error", "task", "dataset", "model", "started", "device", "headline", "verdict"), text),
    **dict.fromkeys(("trustml", "python", "git_commit"), text),
    "exit_code": status,
    "seed": number_or_text,
    "seconds": number,
    "command": command,
    "conditions": names,
    "remarks": texts,
    "better": mapping_of(text),
    "choices": mapping_of(text),
    "libraries": mapping_of(text),
    "peak_memory_mb": mapping_of(number),
    "changed": mapping_of(change),
    "checks": checks,
}
