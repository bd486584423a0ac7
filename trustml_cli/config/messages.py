"""One-line messages for errors of Hydra and OmegaConf that say what would be right."""

import re
from pathlib import Path

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from trustml_cli.config.instantiate import first_line, nearest
from trustml_cli.system.distribution import install_command
from trustml_cli.system.errors import InputError

EXTRAS = ("joblib", "submitit", "ray")  # extras of our package, each with the launcher of that name


def explain(error: Exception, conf: Path, words: list[str]) -> str:
    """One line that says what is wrong with the command line `words` or a YAML file. `conf` is our YAML folder."""
    while isinstance(error, InterpolationResolutionError) and isinstance(error.__context__, Exception):
        error = error.__context__  # the error inside ${...}
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
    from hydra import compose, initialize_config_dir
    from omegaconf import DictConfig, OmegaConf

    known, _ = get_args_parser().parse_known_args(words)
    given = next((word for word in known.overrides if word.lstrip("+~").startswith(key)), key)
    others = [without_sweep(word) for word in known.overrides if not word.lstrip("+~").startswith(key)]
    if known.config_dir:
        others.append(f"hydra.searchpath=[{quoted(str(Path(known.config_dir).absolute()))}]")
    GlobalHydra.instance().clear()
    groups = {path.name for path in conf.iterdir() if path.is_dir() and path.name != "hydra"}
    if key in groups:
        return f"{given}: this task takes no {key}; see trustml --help for those that do"
    parent, _, name = key.rpartition(".")
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            config = compose("config", overrides=others, return_hydra_config=True)
            while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
                parent, _, name = parent.rpartition(".")
            keys = OmegaConf.select(config, parent) if parent else sorted({*groups, *map(str, config)} - {"hydra"})
    except (HydraException, InputError, OmegaConfBaseException):  # the other words are wrong in another way
        return f"{given}: no such key; see trustml --help"
    return f"{given}: no such key; {nearest(name, [str(other) for other in keys if other != '_target_'])}"


def without_sweep(word: str) -> str:
    """An override with the first of its values if it sweeps over several."""
    parsed = OverridesParser.create().parse_override(word)
    if not parsed.is_sweep_override():
        return word
    return f"{parsed.get_key_element()}={next(iter(parsed.sweep_string_iterator()))}"


def quoted(text: str) -> str:
    """A text quoted so that Hydra's override parser reads it as exactly that text."""
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", text).replace("'", "\\'")
    return f"'{escaped}'"
