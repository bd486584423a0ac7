"""The YAML folder, the choices in it, and the resolvers that it may use."""

import os
import secrets
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from trustml_cli.config.instantiate import nearest
from trustml_cli.config.loader import environment
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import file_name
from trustml_cli.system.user_file import MB, read_text

LARGEST = MB  # bytes of a choice's YAML file


def config_folder() -> Path:
    """The folder of the YAML files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def user_folder(kind: str) -> str | None:
    """The user's folder for `cache` or `data` files; None if the user has no home directory."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor a passwd entry, as in some containers
        return None
    return str(Path(base) / "trustml" / ("" if kind == "cache" else kind))


def register_resolvers() -> None:
    """Register the resolvers that trustml's YAML uses as ${NAME:…}."""
    OmegaConf.register_new_resolver("oc.env", environment, replace=True)
    OmegaConf.register_new_resolver("user_folder", user_folder, replace=True)
    OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(4), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("share_of_cores", share_of_cores, replace=True)
    OmegaConf.register_new_resolver("described", described, replace=True)
    OmegaConf.register_new_resolver("named", named, replace=True)
    OmegaConf.register_new_resolver("for_norm", for_norm, replace=True)


def named(group: str, key: str, *, _root_: DictConfig) -> DictConfig:
    """The choices of `group` that the value at `key` names (one name, a list, or null for none), by name.

    Searches Hydra's whole search path, --config-dir included.
    """
    value = OmegaConf.select(_root_, key)
    names = [] if value is None else list(value) if isinstance(value, ListConfig) else [value]
    known = GlobalHydra.instance().config_loader().get_group_options(group) if names else []
    for name in names:
        if name not in known:
            raise InputError(f"{key}={name}: no such {group}; {nearest(str(name), known)}")
    composed = {name: compose(overrides=[f"+{group}={name}"])[group] for name in names}  # alone, which is faster
    nodes = {name: OmegaConf.to_container(node, resolve=False) for name, node in composed.items()}
    return DictConfig(nodes, parent=_root_)  # so that their ${...} resolve in this config


def for_norm(key: str, values: DictConfig, like: str = "", *, _root_: DictConfig, _parent_: DictConfig) -> Any:
    """The entry of `values` for the norm at `key`; a leading dot makes `key` relative to the resolver's node.

    If the group `like` has an epsilon in this norm, its value is used. If no norm is set, the first entry is returned:
    `build` reports the missing norm later, after the check whether the code in question may be run.
    """
    node = _parent_ if key.startswith(".") else _root_
    name, norm = node._get_full_key(key.lstrip(".")), OmegaConf.select(node, key.lstrip("."))
    norm = str(next(iter(values)) if norm is None else norm)
    if norm not in values:
        raise InputError(f"{name}: must be one of {', '.join(map(str, values))} here, got {norm}")
    other = OmegaConf.select(_root_, like) if like else None
    value = other.epsilon if other is not None and str(other.get("norm")) == norm else values[norm]
    return ListConfig(list(value)) if isinstance(value, list | ListConfig) else value


def changed(config: DictConfig, chosen: Mapping[str, str | None], words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Keys whose values differ from the YAML of the choices: `default` and `value` of each.

    `chosen` names the choice of each group. Values set by an experiment or by the overrides `words` count as changes.
    """
    if not chosen.get("experiment") and all(word.partition("=")[0] in chosen for word in words):
        return {}  # nothing but choices: composing the config again would give the same
    plain = composed(
        tuple(
            (group, str(choice))
            for group, choice in chosen.items()
            if choice and not group.startswith(("hydra/", "experiment"))
        )
    )
    defaults, values = (flat(OmegaConf.to_container(every, resolve=True)) for every in (plain, config))  # type: ignore[arg-type]
    keys = [*values, *(key for key in defaults if key not in values)]
    return {
        key: {"default": defaults.get(key), "value": values.get(key)}
        for key in keys
        if defaults.get(key) != values.get(key)
    }


@cache
def composed(choices: tuple[tuple[str, str], ...]) -> DictConfig:
    """The config composed from these choices (group, name), unresolved; cached, since all jobs of a sweep need it.

    A group that other choices bring along is overridden, and a group that was added by `+` is added here too.
    """
    words = {group: f"{group}={name}" for group, name in choices}
    there: set[str] = set()
    found = {"task"} & words.keys()
    while found - there:  # a choice may add groups itself
        there |= found
        if there == words.keys():
            break
        given = [word for group, word in words.items() if group in there]
        known = GlobalHydra.instance().config_loader().compute_defaults_list("config", given, RunMode.RUN)
        found = words.keys() & known.overrides.known_choices.keys()
    return compose("config", [word if group in there else f"+{word}" for group, word in words.items()])


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to values by dotted keys; lists are values."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def folder_name(overrides: str) -> str:
    """A job's overrides as the name of its folder."""
    return file_name(overrides or "defaults")


def share_of_cores(processes: int) -> int:
    """Number of available cores for each of `processes` processes, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // processes, 1)


def help_text() -> str:
    """The text of `trustml --help`. Hydra's own help takes a second to list all groups."""
    node = OmegaConf.load(config_folder() / "hydra" / "help" / "trustml.yaml")
    return str(OmegaConf.create({"hydra": {"help": node}}).hydra.help.template)


def described(group: str = "") -> str:
    """For --help: each choice of `group` with its description, or all other groups with the names of their choices."""
    if group:
        lines = {file.stem: description(file) for file in sorted((config_folder() / group).glob("*.yaml"))}
    else:
        folders = [path for path in sorted(config_folder().iterdir()) if path.is_dir()]
        names = {
            path.name: sorted(file.stem for file in path.glob("*.yaml") if not is_variant(file)) for path in folders
        }
        lines = {name: ", ".join(names[name]) for name in names if name not in ("task", "hydra")}
    width = max(map(len, lines)) + 1
    hanging = f"\n{' ' * (width + 2)}"
    return "\n  ".join(f"{name:<{width}}{hanging.join(wrap(text, 98 - width))}" for name, text in lines.items())


def group_of(choice: str) -> str | None:
    """The group that has a choice of this name, the tasks before all others; None if there is none."""
    files = sorted(config_folder().glob("*/*.yaml"), key=lambda file: (file.parent.name != "task", file))
    return next((file.parent.name for file in files if file.stem == choice), None)


def is_variant(file: Path) -> bool:
    """Whether the YAML of a choice is another choice with a few other values, which an experiment names."""
    return description(file).startswith("variant of ")


def refuse_nameless_choices(overrides: Sequence[str]) -> None:
    """Raise `InputError` for an override of a group of ours whose value is not a name."""
    for word in OverridesParser.create().parse_overrides(list(overrides)):
        group = word.key_or_group
        if not (config_folder() / group).is_dir() or (word.is_delete() and word.value() in (None, "")):
            continue
        for value in values_of(word):
            if not isinstance(value, str | list | QuotedString):
                names = sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))
                raise InputError(f"{word.input_line}: {value} is no name of a choice; {nearest(str(value), names)}")


def values_of(word: Override) -> list[Any]:
    """The values that an override gives, one for each job if it sweeps; none for a glob, whose values are names.

    Raises `InputError` for an interval, which is for optimisers.
    """
    if word.is_interval_sweep():
        raise InputError(f"{word.input_line}: an interval has no end of values; give them, or range(START,STOP,STEP)")
    if word.value_type is ValueType.GLOB_CHOICE_SWEEP:
        return []
    return list(word.sweep_iterator()) if word.is_sweep_override() else [word.value()]


def description(file: Path) -> str:
    """The first comment of a YAML file that is not a Hydra directive."""
    try:
        lines = read_text(file, LARGEST).splitlines()
    except (OSError, ValueError):  # reported when the choice is used
        return ""
    return next((line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line), "")
