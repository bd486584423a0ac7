"""The YAML folders, for tests that cover every choice of a group, newcomers included."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from trustml_cli.config.groups import config_folder, is_variant, register_resolvers
from trustml_cli.config.hydra_internals import composing_from
from trustml_cli.metrics.columns import Columns

PACKAGES = {"timm": "timm", "huggingface": "transformers"}


def choices(group: str, variants: bool = False) -> list[str]:
    """Names of the choices in a group; without variants (a choice with a few other values), unless asked for."""
    files = [file for file in (config_folder() / group).glob("*.yaml") if variants or not is_variant(file)]
    return sorted(file.stem for file in files)


def skip_without_extra(name: str) -> None:
    """Skip the test where the package that a choice needs is not installed."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])


def composed(*overrides: str) -> DictConfig:
    """The config that a command line composes, composed once for each."""
    return deepcopy(compose_once(*overrides))


@cache
def compose_once(*overrides: str) -> DictConfig:
    register_resolvers()
    with composing_from(config_folder()):
        config = compose("config", overrides=list(overrides))
        for key in config:
            if OmegaConf.is_interpolation(config, key):
                config[key] = config[key]  # ${named:…} asks Hydra, which has gone when this returns
        return config


def choice(group: str, name: str, /, **changes: Any) -> DictConfig:
    """One YAML of a group on its own, with some of its values changed."""
    node = OmegaConf.load(Path(config_folder()) / group / f"{name}.yaml")
    values: Any = OmegaConf.to_container(node)  # a value that is missing stays so
    return DictConfig({**values, **changes})


def columns(task: str) -> Columns:
    """What the class of a task in the YAML declares of its metrics.csv, see `trustml_cli.metrics.columns`.

    `.condition` tells conditions from values and `.always` what every row has; `declared` finds the declaration of a
    name, in which `{attribute}` stands for any.
    """
    found: Columns = get_class(composed(f"task={task}").task._target_).columns  # type: ignore[attr-defined]
    return found
