"""What a configuration may do. Every value is said by one of three, and this file decides what each of them may say.

The user: the words of the command line, and nothing else. We: the YAML of this package, of Hydra and of its installed
plugins. A stranger: any other file, be it below --config-dir or hydra.searchpath, or the multirun.yaml of a sweep that
is resumed. A stranger may set whatever is measured. What code is run, where is written and sent to, and what is read of
the environment, is for the user to say.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra._internal import hydra as hydra_itself
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core import utils as hydra_utils
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trustml_cli.system.errors import InputError

OURS = __name__.partition(".")[0]
STRANGERS = ("command-line", "hydra.searchpath")  # how Hydra calls folders that are neither ours nor its own
FOLDERS = ("output_dir", "cache_dir", "data_dir")  # keys that say where is written, at the top or in a part
MACHINERY = ("hydra", "launcher")  # what allow=[hydra] leaves to a file
USERS = ("allow", "resume", "tracker", *FOLDERS, *MACHINERY)  # keys and groups that are the user's to decide
VARIABLES = ("TRUSTML_", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS")  # what a file may read of the environment
LOGGING = r"logging\.(handlers\.)?[A-Z]\w*|ext://sys\.std(out|err)"  # what Python's own logging may be told to make
MADE = ("callbacks", "launcher", "sweeper")  # parts of Hydra's config that Hydra makes objects of
DEEPEST = 30  # levels of a config; one that refers to itself has no end


def refuse(key: str, name: str, known: Sequence[str]) -> None:
    """Raise `InputError` for a `name` of code unless it, or a package that it is in, is `known`."""
    if not any(re.match(rf"{re.escape(package)}(?![^.:])", name) for package in known):
        package = re.split(r"[.:]", name)[0]
        what = "is not for a file to name" if package == OURS else "is no code of trustml's"
        leave = name if package == OURS else package
        raise InputError(f"{key}: {name} {what}; if you trust it, add allow=[{leave}] to the command")


@dataclass(frozen=True)
class Leave:
    """What a user who has typed these `words`, and has these `folders` at the top of the config, leaves to files."""

    words: Sequence[str] = ()
    folders: Sequence[Path] = ()

    def refuse_class(self, key: str, name: str) -> None:
        """Raise `InputError` for a class, named in a config or as what the name led to, that is not ours or allowed."""
        refuse(key, name, [OURS, *typed(self.words, "allow")])

    def refuse_function(self, key: str, name: str) -> None:
        """Raise `InputError` for package.module:function unless it was typed, or its package allowed; ours are not."""
        refuse(key, name, [*typed(self.words, r"\w+\.factory"), *typed(self.words, "allow")])

    def refuse_import(self, key: str, name: str) -> None:
        """The same for what an allowed module, imported by now, has from elsewhere; the user may type its name."""
        module, _, function = name.partition(":")
        found: Any = getattr(sys.modules.get(module), function, None)
        if name not in typed(self.words, r"\w+\.factory") and hasattr(found, "__qualname__"):
            refuse(key, f"{found.__module__}.{found.__qualname__}", typed(self.words, "allow"))

    def refuse_folder(self, key: str, value: Any) -> None:
        """Raise `InputError` for a folder to write to, unless its key was typed or it lies in one of our `folders`."""
        folder = Path(str(value)).expanduser().resolve()
        if not typed(self.words, re.escape(key)) and not any(
            folder.is_relative_to(one.expanduser().resolve()) for one in self.folders
        ):
            raise InputError(f"{key}: {value} is not for a file to choose; give {key} on the command line")


class CarefulRepository(CachingConfigRepository):
    """The YAML files that Hydra finds. A stranger's shall not choose what is the user's to decide."""

    def __init__(self, delegate: Any, words: Sequence[str]) -> None:
        super().__init__(delegate)
        self.words = words

    def load_config(self, config_path: str) -> ConfigResult | None:
        """The file; `InputError` where it lies outside of the folders of choices, or decides what it may not."""
        if config_path.startswith("/") or ".." in config_path.split("/"):
            raise InputError(f"{config_path}: lies outside of the folders of choices; bring yours by --config-dir")
        new = f"config_path={config_path}" not in self.cache
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
        """Raise `InputError` if `key` is the user's to decide and nothing typed leaves it to a `file` of `group`."""
        trusted = key in MACHINERY and "hydra" in typed(self.words, "allow")
        chosen = key == group == "tracker" and typed(self.words, group)
        if key in USERS and not trusted and not chosen:
            mend = ", or add allow=[hydra] to it if you trust the file" if key in MACHINERY else ""
            raise InputError(f"{key}: not for {file} to set; give it on the command line{mend}")


class CarefulLoader(ConfigLoaderImpl):
    """Hydra's loader of YAML, but nothing it returns lets Hydra itself run what the user has not allowed.

    That the parts of a run name no such code is for `build.build` to see to, which makes them.
    """

    words: tuple[str, ...] = ()
    """The command line. What parts of the program compose in between is not typed."""

    @property
    def allow(self) -> list[str]:
        """Packages beside ours whose code may be run."""
        return typed(self.words, "allow")

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """The config; raises `InputError` where Hydra's part of it names code that is neither Hydra's nor allowed."""
        if from_shell:
            self.words = tuple(overrides)
        config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        refuse_code(OmegaConf.to_container(config.hydra, resolve=False), "hydra", self.allow)
        for part in MADE:
            refuse_code(plain(config.hydra[part]), f"hydra.{part}", self.allow)
        if self.allow:
            look_beside()
        return config

    def _parse_overrides_and_create_caching_repo(self, config_name: str | None, overrides: list[str]) -> Any:
        parsed = OverridesParser.create().parse_overrides(overrides=overrides)
        repository = CarefulRepository(self.repository, self.words)
        self._process_config_searchpath(config_name, parsed, repository)
        return parsed, repository

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> DictConfig:
        self._included_by = {default.config_path: default.parent for default in defaults}
        return super()._compose_config_from_defaults_list(defaults, repo)

    def _load_single_config(self, default: Any, repo: Any) -> ConfigResult:
        """A file, at the place in the config where it lands; ours too is a stranger's where a stranger put it there."""
        landed = super()._load_single_config(default, repo)
        path: str | None = default.config_path
        for _ in range(DEEPEST):
            found = repo.load_config(path) if path else None
            if path and found is not None and found.provider.startswith(STRANGERS):
                for key in map(str, landed.config) if isinstance(landed.config, DictConfig) else ():
                    repo.refuse(key, file_of(found, path), path.partition("/")[0])
            path = self._included_by.get(path) if path else None
        return landed


def file_of(found: ConfigResult, config_path: str) -> str:
    """The path of a YAML file that Hydra has found."""
    return f"{found.path.removeprefix('file://')}/{config_path}.yaml"


def typed(words: Sequence[str], key: str) -> list[str]:
    """What the overrides in a command line set the keys to that match `key`; a single value is a list of one."""
    values = [word.value() for word in parsed(tuple(words)) if re.fullmatch(key, word.key_or_group)]
    return [str(one) for value in values for one in (value if isinstance(value, list) else [value])]


@cache
def parsed(words: tuple[str, ...]) -> list[Override]:
    """The overrides in a command line; raises as Hydra does for what is none."""
    return OverridesParser.create().parse_overrides(list(words))


def is_the_users(word: Override) -> bool:
    """Whether an override sets what is the user's to decide: a stranger shall not say it for them."""
    places = [word.key_or_group, *([word.package] if word.package else [])]
    parts = [re.split(r"[./]", place.removeprefix("_global_.")) for place in places]
    return (
        any(part[0] in USERS for part in parts)
        or parts[0][-1] in ("factory", *FOLDERS)
        or any(not readable(name, ()) for name in variables([word.input_line or ""]))
    )


def variables(words: Iterable[str]) -> list[str]:
    """The environment variables that words of a command line ask for by name."""
    return [name for word in words for name in re.findall(r"oc\.env\s*:\s*[\"']?(\w+)", word)]


def readable(name: str, words: Iterable[str]) -> bool:
    """Whether a configuration may read an environment variable: those of ours, and those that the user typed."""
    return name.startswith(VARIABLES[0]) or name in VARIABLES or name in variables(words)


def environment(name: str, default: Any = ..., *, _node_: Any = None) -> str | None:
    """In place of OmegaConf's `oc.env`: the value of an environment variable, if the configuration may read it."""
    if not readable(name, typed_words()):
        key = _node_._get_full_key(None) if _node_ is not None else ""
        place = f"{key}: " if key else ""
        raise InputError(
            f"{place}a file may read TRUSTML_… of the environment, not {name}; give it on the command line"
        )
    if default is ...:
        if name not in os.environ:
            raise KeyError(f"Environment variable '{name}' not found")
        return os.environ[name]
    return os.environ.get(name, str(default) if default is not None else None)


def code(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every name of code in a config of Hydra's or of Python's logging, with its key."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, str) and (name in ("_target_", "()", "class") or value.startswith("ext://")):
                yield f"{key}.{name}", value
            else:
                yield from code(value, f"{key}.{name}")


def refuse_code(node: Any, key: str, allow: Sequence[str]) -> None:
    """Raise `InputError` where a part of Hydra's config, as plain Python, names code that is no plugin nor allowed."""
    plugins = (f"{OURS}.sweeps.callback.Ending", *Plugins.instance().class_name_to_class)
    for place, name in code(node, key):
        if name not in plugins and not re.fullmatch(LOGGING, name):
            refuse(place, name.removeprefix("ext://"), [*allow, *plugins])


def plain(node: Any, depth: int = 0) -> Any:
    """A config as plain Python, with each ${…} followed that leads anywhere by now."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    if depth > DEEPEST:
        raise InputError("hydra: a part of it is inside itself; have no ${…} lead to what it is in")
    found, keys = {}, node if isinstance(node, DictConfig) else range(len(node))
    for key in cast("Iterable[Any]", keys):
        try:
            found[key] = plain(node[key], depth + 1)
        except OmegaConfBaseException:
            found[key] = cast("Node", node._get_node(key))._value()
    return found


def typed_words() -> tuple[str, ...]:
    """The command line of this process, or of that which this one is a job of."""
    hydra = GlobalHydra.instance()
    return getattr(hydra.config_loader(), "words", ()) if hydra.is_initialized() else ()


def configure_log(log_config: Any, verbose_config: Any = False) -> None:
    """Hydra's, but Python's logging makes nothing that the user has not allowed."""
    if log_config is not None:
        refuse_code(plain(log_config), f"hydra.{log_config._key()}", typed(typed_words(), "allow"))
    CONFIGURE_LOG(log_config, verbose_config)


CONFIGURE_LOG = hydra_utils.configure_log


def mode_of(hydra: hydra_itself.Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """The run mode that a config asks for; None where the flags of the command line decide.

    To look, Hydra composes the whole config once more (0.2 s at every start). None of our files sets `hydra.mode`, and
    somebody else's may only under `allow=[hydra]`; so we look only where a word of the command speaks of Hydra.
    """
    return GET_MODE(hydra, config_name, overrides) if any("hydra" in word for word in overrides) else None


GET_MODE = hydra_itself.Hydra.get_mode


def look_beside() -> None:
    """Have modules in the current directory found, after all others: for code that the user has allowed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def be_careful() -> None:
    """Have Hydra load YAML with care from here on, and no more often than it must."""
    vars(hydra_itself)["ConfigLoaderImpl"] = CarefulLoader
    vars(hydra_itself)["configure_log"] = vars(hydra_utils)["configure_log"] = configure_log
    vars(hydra_itself)["Hydra"].get_mode = mode_of
