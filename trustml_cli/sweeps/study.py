"""The jobs of a study: a run or a sweep for each of its items, in one multirun."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trustml_cli.config.groups import config_folder
from trustml_cli.config.hydra_internals import split_sweep
from trustml_cli.config.messages import explain, quoted, without_sweep
from trustml_cli.config.trust import is_the_users
from trustml_cli.results.study import Item
from trustml_cli.system.errors import InputError
from trustml_cli.system.files import file_name


def jobs_of(
    items: Mapping[str, Item], quick: bool, typed: Sequence[str], loader: ConfigLoader
) -> dict[str, list[list[str]]]:
    """The overrides of every job of each item, in order; each job runs in a directory named after its item.

    An override that was `typed` goes to every item whose config has its key, and replaces the item's own of that key.
    Raises `InputError` for a key that no item has, and for an item that sets what only the user may set.
    """
    parser = OverridesParser.create(loader)
    given = [word for word in parser.parse_overrides(list(typed)) if word.key_or_group.partition(".")[0] != "study"]
    taken: set[str] = set()
    jobs: dict[str, list[list[str]]] = {}
    for name, item in items.items():
        own = parser.parse_overrides([*item.run, *(item.quick if quick else [])])
        for word in own:
            if is_the_users(word):
                raise InputError(f"study.items.{name}: {word.input_line} is not for a study to set; give it yourself")
        try:
            words = with_typed(own, given, loader)
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(f"study.items.{name}: {explain(error, config_folder(), item.run)}") from error
        taken |= {word.get_key_element() for word in given if word in words}
        swept = {word.get_key_element() for word in words if word.is_sweep_override()}
        jobs[name] = []
        for job in split_sweep(words):
            differs = ",".join(word for word in job if word.partition("=")[0] in swept)
            folder = file_name(f"{name},{differs}") if differs else name
            jobs[name].append([*job, f"hydra.sweep.subdir={quoted(folder)}"])
    for word in given:
        if word.get_key_element() not in taken:
            raise InputError(f"{word.input_line}: no item of this study has this key")
    return jobs


def with_typed(own: Sequence[Override], given: Sequence[Override], loader: ConfigLoader) -> list[Override]:
    """The overrides of an item with those `given` that its config has a place for; choices decide which keys it has."""
    words = {word.get_key_element(): word for word in own}
    config = composed(words.values(), loader)
    choices = config.hydra.runtime.choices
    if chosen := {word.get_key_element(): word for word in given if word.key_or_group in choices}:
        words |= chosen
        config = composed(words.values(), loader)
    for word in given:
        parent, _, key = word.key_or_group.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if word.key_or_group not in choices and isinstance(node, DictConfig) and key in {*node}:  # also where it is ???
            words[word.get_key_element()] = word
    return list(words.values())


def composed(words: Any, loader: ConfigLoader) -> DictConfig:
    """The config that overrides compose; a sweep contributes its first value."""
    first = [one for word in words for one in without_sweep(str(word.input_line))]
    return loader.load_configuration("config", first, RunMode.RUN, from_shell=False)
