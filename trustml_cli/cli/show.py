"""`trustml show`: the available choices and their keys, read from the YAML files."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from trustml_cli.config.groups import LARGEST, description
from trustml_cli.config.instantiate import nearest
from trustml_cli.system.errors import InputError, one_line
from trustml_cli.system.user_file import read_text, read_yaml

Folders = Sequence[Path]
"""Folders of YAML files in order of precedence: of two files with one name the first is used."""


def groups(folders: Folders) -> dict[str, dict[str, Path]]:
    """The file of every choice by group and name, except for Hydra's own group."""
    found: dict[str, dict[str, Path]] = {}
    for file in (file for folder in folders for file in sorted(folder.glob("*/*.yaml"))):
        if file.parent.name != "hydra" and file.is_file():
            found.setdefault(file.parent.name, {}).setdefault(file.stem, file)
    return {group: dict(sorted(found[group].items())) for group in sorted(found)}


def show_groups(folders: Folders) -> list[list[str]]:
    """One row per group: its name, the number of its choices, and their names."""
    return [[group, str(len(choices)), ", ".join(choices)] for group, choices in groups(folders).items()]


def show_group(group: str, folders: Folders) -> list[list[str]]:
    """A line for each choice of a group: its name and its description."""
    return [[choice, description(file)] for choice, file in choices_of(group, folders).items()]


def show_choice(group: str, choice: str, folders: Folders) -> list[list[str]]:
    """One row per key that a choice sets: the key as on the command line, its default, and its comment in the YAML."""
    files = choices_of(group, folders)
    if choice not in files:
        raise InputError(f"{group}={choice}: no such {group}; {nearest(choice, files)}")
    return [[key, value, comment] for key, (value, comment) in keys(files[choice]).items()]


def choices_of(group: str, folders: Folders) -> dict[str, Path]:
    """The file of every choice of a group. Raises `InputError` for an unknown group."""
    known = groups(folders)
    if group not in known:
        owners = " and ".join(owner for owner, choices in known.items() if group in choices)
        hint = f"it is a choice of {owners}; write {owners.split()[0]}={group}" if owners else nearest(group, known)
        raise InputError(f"{group}: no such group; {hint}")
    return known[group]


def content_of(file: Path) -> tuple[str, dict[str, Any]]:
    """The text of a choice's file and its parsed mapping. Raises `InputError` if it cannot be read or parsed."""
    try:
        text = read_text(file, LARGEST)
        content = read_yaml(text) or {}
        if not isinstance(content, dict) or not isinstance(content.get("defaults", []), list):
            raise ValueError("holds no keys with values, its defaults a list")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: {one_line(error)}") from error
    return text, content


def keys(file: Path, above: Sequence[Path] = ()) -> dict[str, tuple[str, str]]:
    """Value and comment, as written, of every key in a YAML file and in the files of its group that it extends.

    Groups in its defaults list are included, with the choice as value. The files `above` extend this one. Raises
    `InputError` if a file cannot be read, or extends itself.
    """
    if file in above:
        raise InputError(f"{file}: builds on itself")
    text, content = content_of(file)
    package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    prefix = {"_global_": "", "_group_": file.parent.name}.get(name := package[1] if package else "_group_", name)
    found: dict[str, tuple[str, str]] = {}
    for item in content.get("defaults", []):
        if isinstance(item, dict):
            for group, choice in item.items():
                found[str(group).removeprefix("override ").lstrip("/")] = (written(choice), "")
        elif item != "_self_":
            found |= keys(file.parent / f"{item}.yaml", [*above, file])
    own = below(yaml.compose(text), text, prefix)
    return found | {key: (value, comment or found.get(key, ("", ""))[1]) for key, (value, comment) in own.items()}


def below(node: yaml.Node | None, text: str, prefix: str) -> dict[str, tuple[str, str]]:
    """The keys below a YAML node with value and comment; `prefix` is the path of the node."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if not isinstance(name, yaml.ScalarNode):
            continue
        path = f"{prefix}.{name.value}" if prefix else name.value
        if isinstance(value, yaml.MappingNode) and value.value:
            found |= below(value, text, path)
        elif name.value not in ("defaults", "_target_"):
            end = value.end_mark.index
            comment = text[end:].partition("\n")[0].partition("#")[2].strip()
            block = isinstance(value, yaml.ScalarNode) and value.style in ("|", ">")  # several lines of text
            value_text = json.dumps(value.value, ensure_ascii=False) if block else text[value.start_mark.index : end]
            found[path] = (" ".join(value_text.split()), "" if block else comment)
    return found


def written(choice: object) -> str:
    """A choice of a defaults list as written on the command line."""
    if isinstance(choice, list):
        return f"[{', '.join(map(str, choice))}]"
    return "null" if choice is None else str(choice)
