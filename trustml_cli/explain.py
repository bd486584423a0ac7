"""Hydra's and OmegaConf's errors as one line that says what would be right."""

import re
from pathlib import Path

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationResolutionError

from trustml_cli.build import first_line, nearest
from trustml_cli.errors import InputError


def explain(error: Exception, conf: Path, overrides: list[str]) -> str:
    """What is wrong with the command line or a YAML file, in one line. `conf` is the folder of our own YAML."""
    while isinstance(error, InterpolationResolutionError) and isinstance(error.__context__, Exception):
        error = error.__context__  # what happened inside ${...}
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: no such {group}; {nearest(choice, error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read; write KEY=VALUE, or 'KEY=[VALUE,VALUE]' in quotes for a list"
    text = first_line(error)
    if isinstance(error, InputError):
        return text
    if match := re.match(r"Could not override '([^'@]+)(?:@[^']*)?'", text):
        return unknown_key(match.group(1), conf, overrides)
    if isinstance(error, yaml.YAMLError):
        return f"a YAML file is malformed: {' '.join(str(error).split())}"
    cause = error.__cause__
    return f"{text} ({first_line(cause)})" if cause is not None and first_line(cause) not in text else text


def unknown_key(key: str, conf: Path, overrides: list[str]) -> str:
    """What to say of an override whose key is not in the config that the other overrides compose."""
    from hydra import compose, initialize_config_dir
    from omegaconf import DictConfig

    given = next((word for word in overrides if word.lstrip("+~").startswith(key)), key)
    GlobalHydra.instance().clear()
    others = [word for word in overrides if "=" in word and not word.lstrip("+~").startswith(key)]
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("config", overrides=others)
    groups = {path.name for path in conf.iterdir() if path.is_dir() and path.name != "hydra"}
    if key in groups:
        return f"{given}: this task takes no {key}; see trustml --help for those that do"
    group, dot, _ = key.partition(".")
    node = config.get(group) if dot else None
    if isinstance(node, DictConfig):
        inner = key.partition(".")[2]
        return f"{given}: no such key; {nearest(inner, [str(name) for name in node if name != '_target_'])}"
    return f"{given}: no such key; {nearest(group, sorted(groups | {str(name) for name in config}))}"
