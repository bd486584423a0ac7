"""One-line messages for errors of Hydra and OmegaConf that say what would be right."""

import re
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from trustml_cli.config.groups import flat
from trustml_cli.config.hydra_internals import composing_from, get_args_parser
from trustml_cli.config.instantiate import first_line, nearest
from trustml_cli.system.distribution import install_command
from trustml_cli.system.errors import InputError

FEW = 3  # most keys that are proposed
EXTRAS = ("joblib", "submitit", "ray")  # extras of our package, each with the launcher of that name


def explain(error: Exception, conf: Path, words: list[str]) -> str:
    """One line that says what is wrong with the command line `words` or a YAML file. `conf` is our YAML folder."""
    while isinstance(error, InterpolationResolutionError) and isinstance(error.__context__, Exception):
        error = error.__context__  # the error inside ${...}
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, InterpolationResolutionError):
        return explain(error.__cause__, conf, words)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and (extra := choice.partition("_")[0]) in EXTRAS:
            return f"launcher: {extra} is not installed; {install_command(extra)}"
        return f"{group}={choice}: no such {group}; {nearest(choice, error.options)}"
    if isinstance(error, OverrideParseException):
        how = "write KEY=VALUE, 'KEY=[VALUE,VALUE]' for a list, 'KEY=\"VALUE\"' for anything but plain letters"
        return f"{' '.join(str(error.override).split())}: cannot be read; {how}"
    text = first_line(error)
    if isinstance(error, InputError):
        return text
    if match := re.match(r"Ambiguous value for argument '(.*)'$", text):
        key, _, values = match[1].partition("=")
        how = f"'{key}=[{values}]' is a list, '{key}=\"{values}\"' a text, and with -m there is a job for each"
        return f"{match[1]}: several values; {how}"
    if (match := re.match(r"Multiple values for ([\w/@]+)\.", text)) and (
        given := next((word for word in words if word.startswith(f"+{match[1]}=")), "")
    ):
        return f"{given}: there is one already; to take another, write {given.lstrip('+')}"
    if match := re.match(r"Could not override '([^'@]+)(?:@[^']*)?'", text):
        return unknown_key(match.group(1), conf, words)
    if isinstance(error, yaml.YAMLError):
        return f"a YAML file is malformed: {' '.join(str(error).split())}"
    cause = error.__cause__
    if cause is not None and text == type(error).__name__:
        return first_line(cause)
    return f"{text} ({first_line(cause)})" if cause is not None and first_line(cause) not in text else text


def unknown_key(key: str, conf: Path, words: list[str]) -> str:
    """The message for an override whose key is not in the config that the other words of the command line compose."""
    known, _ = get_args_parser().parse_known_args(words)
    given = next((word for word in known.overrides if word.lstrip("+~").startswith(key)), key)
    groups = {path.name for path in conf.iterdir() if path.is_dir() and path.name != "hydra"}
    if key in groups:
        return f"{given}: this task takes no {key}; see trustml --help for those that do"
    config = composed_without(key, conf, words)
    if config is None:
        return f"{given}: no such key; see trustml --help"
    chosen = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
    top = key.partition(".")[0]
    group = next((one for one in chosen if one.rpartition("@")[2] == top), "")
    kind = group.partition("@")[0]
    lists = f"(trustml show {kind} lists the names)"
    if group and chosen[group] is None:
        return f"{given}: there is no {top} yet; add {group}=NAME {lists}"
    if kind not in ("", "task") and not {*map(str, config.get(top, {}))} - {"_target_"}:
        return f"{given}: {group}={chosen[group]} has no keys; choose another {kind} {lists}"
    parent, _, name = key.rpartition(".")
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        parent, _, name = parent.rpartition(".")
    if not parent and (deeper := deeper_keys(config, name)):
        return f"{given}: no such key; did you mean {' or '.join(deeper)}?"
    keys = OmegaConf.select(config, parent) if parent else sorted({*groups, *map(str, config)} - {"hydra"})
    return f"{given}: no such key; {nearest(name, [str(other) for other in keys if other != '_target_'])}"


def deeper_keys(config: DictConfig, name: str) -> list[str]:
    """The dotted keys, a few at most, that end in `name`."""
    shown = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    keys: Any = OmegaConf.to_container(shown, resolve=False)
    return [key for key in flat(keys) if key.rpartition(".")[2] == name and "." in key][:FEW]


def exists(key: str, conf: Path, words: list[str]) -> bool:
    """Whether a command line composes a config with this key, or composes none at all."""
    config = composed_without(key, conf, words)
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if config is not None else {name: None}
    return node is not None and name in node


def composed_without(key: str, conf: Path, words: list[str]) -> DictConfig | None:
    """The config that a command line composes without its overrides of `key`; None if they are wrong in another way.

    A sweep contributes its first value.
    """
    known, _ = get_args_parser().parse_known_args(words)
    others = [one for word in known.overrides if not word.lstrip("+~").startswith(key) for one in without_sweep(word)]
    if known.config_dir:
        others.append(f"hydra.searchpath=[{quoted(str(Path(known.config_dir).absolute()))}]")
    GlobalHydra.instance().clear()
    try:
        with composing_from(conf):
            config = compose("config", overrides=others, return_hydra_config=True)
            top = key.partition(".")[0]
            if top in config and OmegaConf.is_interpolation(config, top):
                config[top] = config[top]  # ${named:…} composes too, which needs this context
            return config
    except (HydraException, InputError, OmegaConfBaseException):
        return None


def without_sweep(word: str) -> list[str]:
    """An override with the first of its values if it sweeps over several; nothing for a glob."""
    parsed = OverridesParser.create().parse_override(word)
    if not parsed.is_sweep_override():
        return [word]
    if parsed.value_type is ValueType.GLOB_CHOICE_SWEEP or parsed.is_interval_sweep():
        return []
    return [f"{parsed.get_key_element()}={value}" for value in islice(parsed.sweep_string_iterator(), 1)]


def quoted(text: str) -> str:
    """A text quoted so that Hydra's override parser reads it as exactly that text."""
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", text).replace("'", "\\'")
    return f"'{escaped}'"
