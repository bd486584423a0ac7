"""Hydra's and OmegaConf's errors as one line that says what would be right."""

import re
from pathlib import Path

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException

from trustml_cli.build import first_line, nearest


def explain(error: Exception, conf: Path, overrides: list[str]) -> str:
    """What is wrong with the command line or a YAML file, in one line. `conf` is the folder of our own YAML."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: no such {group}; {nearest(choice, error.options)}"
    text = first_line(error)
    if match := re.match(r"Could not override '([^'@]+)(?:@[^']*)?'", text):
        key = match.group(1)
        given = next((word for word in overrides if word.lstrip("+~").startswith(key)), key)
        return f"{given}: no such key; {nearest_key(key, conf, overrides)}"
    if isinstance(error, yaml.YAMLError):
        return f"a YAML file is malformed: {' '.join(str(error).split())}"
    cause = error.__cause__
    return f"{text} ({first_line(cause)})" if cause is not None and first_line(cause) not in text else text


def nearest_key(key: str, conf: Path, overrides: list[str]) -> str:
    """The key that was probably meant, among those of the config that the other overrides compose."""
    from hydra import compose, initialize_config_dir
    from omegaconf import DictConfig

    GlobalHydra.instance().clear()
    others = [word for word in overrides if "=" in word and not word.lstrip("+~").startswith(key)]
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("config", overrides=others)
    groups = {path.name for path in conf.iterdir() if path.is_dir() and path.name != "hydra"}
    keys = {str(name) for name in config}
    for name, node in config.items():
        if isinstance(node, DictConfig):
            keys |= {f"{name}.{inner}" for inner in node if inner != "_target_"}
    known = [name for name in keys if name.startswith(f"{key.partition('.')[0]}.")] if "." in key else keys | groups
    return nearest(key, sorted(known) or sorted(keys))
