"""Hydra's YAML loader and everything else in Hydra that runs code or reads the environment, restricted by `trust`."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trustml_cli.config.hydra_internals import (
    APPLY_OVERRIDES,
    CONFIGURE_LOG,
    CachingConfigRepository,
    ConfigLoaderImpl,
    decide_mode_without_composing,
    map_choices_where_needed,
    read_yaml_once,
    replace_loader,
    silence_lookups,
)
from trustml_cli.config.trust import MACHINERY, USERS, packages, readable, refuse_code, typed_values
from trustml_cli.system.errors import InputError, one_line
from trustml_cli.system.files import refuse_links
from trustml_cli.system.user_file import MB, read_text

STRANGERS = ("command-line", "hydra.searchpath")  # Hydra's names for third-party folders
MADE = ("callbacks", "launcher", "sweeper")  # parts of Hydra's config that Hydra instantiates
MOST = 20_000  # values in a third-party file
DEEPEST = 30  # levels of a config; a config that refers to itself has no end


class CarefulRepository(CachingConfigRepository):
    """Hydra's repository of YAML files, which refuses third-party files that set keys reserved to the user."""

    def __init__(self, delegate: Any, words: Sequence[str]) -> None:
        super().__init__(delegate)
        self.words = words

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Load the file; `InputError` if it lies outside of the choice folders, or sets a key reserved to the user."""
        if config_path.startswith("/") or ".." in config_path.split("/"):
            raise InputError(f"{config_path}: is outside the folders of choices; give your folder by --config-dir")
        new = f"config_path={config_path}" not in self.cache
        source = self.delegate._find_object_source(config_path, ObjectType.CONFIG) if new else None  # type: ignore[attr-defined]
        if source and source.scheme() == "file" and source.provider.startswith(STRANGERS):
            refuse_flood(Path(source.path) / f"{config_path}.yaml")
        found = super().load_config(config_path)
        if found is not None and new and found.provider.startswith(STRANGERS):
            file, group = file_of(found, config_path), config_path.partition("/")[0]
            if group in USERS:
                self.refuse(group, file, group)
            for default in found.defaults_list or []:
                chosen = str(default.group if isinstance(default, GroupDefault) else vars(default)["path"])
                if "${" in chosen:
                    raise InputError(f"defaults: {file} names {chosen}; name the choice itself")
                self.refuse(chosen.lstrip("/").partition("/")[0], file, group)
        return found

    def refuse(self, key: str, file: str, group: str) -> None:
        """Raise `InputError` if only the user may set `key` and has not allowed `file` of `group` to set it."""
        trusted = key in MACHINERY and "hydra" in typed_values(self.words, "allow")
        chosen = key == group == "tracker" and typed_values(self.words, group)
        if key in USERS and not trusted and not chosen:
            mend = ", or add allow=[hydra] to it if you trust the file" if key in MACHINERY else ""
            raise InputError(f"{key}: not for {file} to set; give it on the command line{mend}")


class CarefulLoader(ConfigLoaderImpl):
    """Hydra's config loader; no config that it returns makes Hydra itself run code that the user has not allowed.

    `instantiate.build` checks the classes that the parts of a run name.
    """

    words: tuple[str, ...] = ()
    """The command line. Overrides that trustml itself composes later are not part of it."""
    sweeping = False
    """Whether the config of a whole sweep is loaded. Its jobs may have other tasks, with other keys, than it has."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        read_yaml_once()

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Load the config; raises `InputError` if its `hydra` part names code that is neither Hydra's nor allowed."""
        if from_shell:
            self.words = tuple(overrides)
        CarefulLoader.sweeping = run_mode is RunMode.MULTIRUN
        config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        allow = packages(self.words)
        refuse_code(OmegaConf.to_container(config.hydra, resolve=False), "hydra", allow)
        for part in MADE:
            refuse_code(plain(config.hydra[part]), f"hydra.{part}", allow)
        if allow:
            search_working_directory()
        return config

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str], *_parsed: Any
    ) -> Any:
        parsed = OverridesParser.create().parse_overrides(overrides=overrides)
        repository = CarefulRepository(self.repository, self.words)
        self._process_config_searchpath(config_name, parsed, repository)
        return parsed, repository

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> DictConfig:
        self._included_by = {default.config_path: default.parent for default in defaults}
        return super()._compose_config_from_defaults_list(defaults, repo)

    def _load_single_config(self, default: Any, repo: Any) -> ConfigResult:
        """Load a file and check it at its place in the config, as well as the third-party files that include it."""
        landed = super()._load_single_config(default, repo)
        path: str | None = default.config_path
        for _ in range(DEEPEST):
            found = repo.load_config(path) if path else None
            if path and found is not None and found.provider.startswith(STRANGERS):
                for key in map(str, landed.config) if isinstance(landed.config, DictConfig) else ():
                    repo.refuse(key, file_of(found, path), path.partition("/")[0])
            path = self._included_by.get(path) if path else None
        return landed


def refuse_flood(file: Path) -> None:
    """Raise `InputError` for a YAML file that is too large or too deep, also after expansion of its aliases."""
    try:
        text = read_text(file, MB)
        sizes: dict[str, int] = {}  # number of values behind each anchor
        inside: list[tuple[str | None, int]] = [(None, 0)]  # anchor and size so far of the open nodes
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            anchor, size = getattr(event, "anchor", None), int(isinstance(event, yaml.ScalarEvent))
            if isinstance(event, yaml.CollectionStartEvent):
                inside.append((anchor, 1))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, size = inside.pop()
            elif isinstance(event, yaml.AliasEvent):
                if anchor not in sizes:
                    raise ValueError(f"*{anchor} is inside itself, or names nothing")
                size = sizes[anchor]
            if anchor and size:
                sizes[anchor] = size
            inside[-1] = (inside[-1][0], inside[-1][1] + size)
            if inside[-1][1] > MOST or len(inside) > DEEPEST:
                raise ValueError(f"holds more than {MOST:,} values, or is nested more than {DEEPEST} deep")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file}: {one_line(error)}") from error


def file_of(found: ConfigResult, config_path: str) -> str:
    """The path of a YAML file found by Hydra."""
    return f"{found.path.removeprefix('file://')}/{config_path}.yaml"


def environment(name: str, default: Any = ..., *, _node_: Any = None) -> str | None:
    """Replaces OmegaConf's `oc.env`: the value of an environment variable that the configuration may read.

    An empty variable counts as not set, as shells and job managers mean it.
    """
    if not readable(name, typed_words()):
        key = _node_._get_full_key(None) if _node_ is not None else ""
        place = f"{key}: " if key else ""
        raise InputError(
            f"{place}a file may read TRUSTML_… of the environment, not {name}; give it on the command line"
        )
    if default is ...:
        if not os.environ.get(name):
            raise KeyError(f"Environment variable '{name}' not found")
        return os.environ[name]
    return os.environ.get(name) or (str(default) if default is not None else None)


def plain(node: Any, depth: int = 0) -> Any:
    """A config as plain Python objects, with each ${…} resolved if its target exists by now."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    if depth > DEEPEST:
        raise InputError("hydra: a part contains itself; remove the ${…} that leads to what it is in")
    found, keys = {}, node if isinstance(node, DictConfig) else range(len(node))
    for key in cast("Iterable[Any]", keys):
        try:
            found[key] = plain(node[key], depth + 1)
        except OmegaConfBaseException:
            found[key] = cast("Node", node._get_node(key))._value()
    return found


def typed_words() -> tuple[str, ...]:
    """The command line of this process, or of the process that launched it as a job."""
    hydra = GlobalHydra.instance()
    return getattr(hydra.config_loader(), "words", ()) if hydra.is_initialized() else ()


def configure_log(log_config: Any, verbose_config: Any = False, **more: Any) -> None:
    """Hydra's `configure_log`, except that it instantiates no logging class that the user has not allowed."""
    if log_config is not None:
        refuse_code(plain(log_config), f"hydra.{log_config._key()}", packages(typed_words()))
        if log_config._key() == "job_logging":  # the first that is written to in a run's directory
            refuse_links(Path(HydraConfig.get().runtime.output_dir))
    CONFIGURE_LOG(log_config, verbose_config, **more)


def apply_overrides(overrides: list[Override], config: DictConfig) -> None:
    """Apply overrides as Hydra does, those of the choices that ${named:…} brings last, when it is known which."""

    def top(word: Override) -> str:
        return word.key_or_group.partition(".")[0]

    brought = [word for word in overrides if top(word) in config and OmegaConf.is_interpolation(config, top(word))]
    brought = [word for word in brought if "." in word.key_or_group]
    if "study" in config:
        OmegaConf.set_struct(config.study, False)  # its reader knows the keys, also those that a file leaves out
    for word in overrides:
        if word not in brought:
            try:
                APPLY_OVERRIDES([word], config)
            except ConfigCompositionException:
                if not CarefulLoader.sweeping or top(word) == "hydra":
                    raise  # otherwise the sweep's jobs, which are composed before the first begins, say so
    for name in dict.fromkeys(map(top, brought)):
        config[name] = config[name]
    APPLY_OVERRIDES(brought, config)


def search_working_directory() -> None:
    """Append the current directory to the module search path, for code that the user has allowed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def install_careful_loader() -> None:
    """Replace Hydra's config loader with `CarefulLoader`, and avoid its repeated composition."""
    replace_loader(CarefulLoader, apply_overrides, configure_log)
    decide_mode_without_composing()
    map_choices_where_needed()
    silence_lookups()
