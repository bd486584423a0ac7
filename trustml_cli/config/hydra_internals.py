"""What this package takes from Hydra's private modules, and everything that it replaces in Hydra and its plugins.

It is all here, so that a new version of Hydra concerns this file and the private methods that `loader.CarefulLoader`
overrides. `make test-next` tries the newest version.
"""

import logging
import pickle
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal import defaults_list
from hydra._internal import hydra as hydra_itself
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import get_args_parser
from hydra.core import utils as hydra_utils
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf
from omegaconf.basecontainer import get_yaml_loader  # type: ignore[attr-defined]  # its own module has moved

__all__ = ["CachingConfigRepository", "ConfigLoaderImpl", "get_args_parser"]

VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
"""Which version's defaults Hydra takes; from 1.4 on it has but its own."""

APPLY_OVERRIDES: Callable[..., None] = ConfigLoaderImpl._apply_overrides_to_config
CONFIGURE_LOG: Callable[..., None] = hydra_utils.configure_log
INTERPOLATION_MAP: Callable[..., Any] | None = getattr(defaults_list, "_create_interpolation_map", None)  # not in 1.4
SPLIT_SWEEP: Callable[..., list[list[list[str]]]] = BasicSweeper.split_arguments
GET_MODE: Callable[..., Any] = hydra_itself.Hydra.get_mode


def run_main(job: Callable[..., int], folder: Path) -> None:
    """Have Hydra compose the config of the command line from the YAML in `folder`, and call `job`."""
    hydra.main(config_path=str(folder), config_name="config", **VERSION_BASE)(job)()


def composing_from(folder: Path) -> AbstractContextManager[Any]:
    """A context in which `hydra.compose` takes the YAML in `folder`."""
    return hydra.initialize_config_dir(str(folder), **VERSION_BASE)


def replace_loader(
    loader: type[ConfigLoaderImpl], apply_overrides: Callable[..., None], configure_log: Callable[..., None]
) -> None:
    """Have Hydra load configs by `loader`, and apply overrides and set up logs by these functions."""
    implementation: Any = ConfigLoaderImpl
    implementation._apply_overrides_to_config = staticmethod(apply_overrides)
    vars(hydra_itself)["ConfigLoaderImpl"] = loader
    vars(hydra_itself)["configure_log"] = vars(hydra_utils)["configure_log"] = configure_log


def decide_mode_without_composing() -> None:
    """Keep Hydra from composing the whole config to see in which mode it runs, unless a word mentions Hydra.

    That takes 0.2 s at every start. Without such a word the flags decide: none of our files sets `hydra.mode`, and
    third-party files may only under `allow=[hydra]`.
    """

    def get_mode(self: Any, config_name: str | None, overrides: list[str], **more: Any) -> Any:
        return GET_MODE(self, config_name, overrides, **more) if any("hydra" in word for word in overrides) else None

    vars(hydra_itself)["Hydra"].get_mode = get_mode


def map_choices_where_needed() -> None:
    """Keep Hydra from making, for each file of a config, a map of choices for `${...}` in defaults lists.

    That is a sixth of what it takes to compose a config.
    """
    if (made := INTERPOLATION_MAP) is None:
        return

    def mapped(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        wanted = any(default.is_interpolation() for default in defaults if not default.is_self())
        return made(overrides, defaults, self_added) if wanted else None

    vars(defaults_list)["_create_interpolation_map"] = mapped


@cache
def fast_loader() -> Any:
    """OmegaConf's YAML loader, on libyaml's parser where PyYAML has it."""
    own: Any = get_yaml_loader()
    if not hasattr(yaml, "CSafeLoader") or issubclass(own, yaml.CSafeLoader):  # OmegaConf's own is, from 2.4 on
        return own

    class FastLoader(yaml.CSafeLoader, own):  # type: ignore[misc]
        """Takes text apart as the first does, and makes values and refuses repeated keys as the second does."""

        construct_mapping = own.construct_mapping
        yaml_constructors = own.yaml_constructors
        yaml_implicit_resolvers = own.yaml_implicit_resolvers

    return FastLoader


@lru_cache(maxsize=1024)
def pickled_config(text: str) -> bytes:
    """The mapping in a YAML text, or none, as a pickled `DictConfig`; raises `YAMLError`, or `TypeError` for others."""
    values = yaml.load(text, Loader=fast_loader())  # a safe loader
    if not isinstance(values, dict | None):
        raise TypeError("no mapping")
    return pickle.dumps(OmegaConf.create(values or {}))


class QuickReading(OmegaConf):
    """OmegaConf, whose `load` parses a text once in a process, and faster."""

    @staticmethod
    def load(file_: Any) -> Any:
        """As `OmegaConf.load` of an open file, which still reads what has a fault, and words its message."""
        try:
            return pickle.loads(pickled_config(file_.read()))  # made in this process
        except (yaml.YAMLError, TypeError):
            file_.seek(0)
            return OmegaConf.load(file_)


def read_yaml_once() -> None:
    """Have Hydra parse each YAML text once in a process. Reading 24 files was half of what it took to compose a config.

    Call it after Hydra has looked for plugins, since it makes copies of its own modules then.
    """
    for scheme in ("file", "pkg"):
        source: Any = SourcesRegistry.instance().resolve(scheme)
        source.load_config.__globals__["OmegaConf"] = QuickReading


def silence_lookups() -> None:
    """Keep Hydra from printing an error, over several lines, before it raises it for a class that it cannot find."""
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)


def replace_check_of_jobs(validate: Callable[..., None]) -> None:
    """Have sweepers check the overrides of all jobs by `validate`, before the first of them begins."""
    checks: Any = Sweeper
    checks.validate_batch_is_legal = validate


def split_sweep(words: Sequence[Any]) -> list[list[str]]:
    """The overrides of each job of a sweep, from its parsed overrides."""
    return SPLIT_SWEEP(list(words), None)[0]


def have_jobs(jobs: list[list[str]] | None) -> None:
    """Have the sweeper run these `jobs` instead of the product of what is swept over, or that again for None."""
    name = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
    sweeper: Any = Plugins.instance().class_name_to_class[name]  # a copy of the class, which Hydra made when it looked

    def split(overrides: list[Any], max_batch_size: int | None) -> list[list[list[str]]]:
        return SPLIT_SWEEP(overrides, max_batch_size) if jobs is None else [jobs]

    sweeper.split_arguments = staticmethod(split)


def replace_joblib_pool(pool: type) -> None:
    """Have Hydra's joblib launcher run jobs in `pool` instead of `joblib.Parallel`."""
    from hydra_plugins.hydra_joblib_launcher import _core

    _core.Parallel = pool


def replace_submitit_results(wrap: Callable[[Callable[[Any], list[Any]]], Callable[[Any], list[Any]]]) -> None:
    """Have submitit's jobs, which Hydra's launcher waits for, give what `wrap` makes of their results."""
    from submitit import Job

    job: Any = Job
    job.results = wrap(Job.results)


def replace_ray(stand_in: Callable[[Any], Any]) -> None:
    """Have Hydra's Ray launcher ask `stand_in`, made of the module `ray`, for the results of jobs."""
    import ray
    from hydra_plugins.hydra_ray_launcher import _core

    launcher: Any = _core
    launcher.ray = stand_in(ray)
