"""What a configuration may have run: our own code, and what the user allows by name on the command line."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal import hydra as hydra_itself
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from trustml_cli.system.errors import InputError

OURS = __name__.partition(".")[0]
THEIRS = ("command-line", "hydra.searchpath")  # what Hydra calls folders that are not ours: --config-dir, and more
COMMAND_LINE = ("allow", "hydra")  # keys that decide what is run; a file of somebody's shall not set them
LOGGING = r"logging\.(handlers\.)?[A-Z]\w*|ext://sys\.std(out|err)"  # what Python's own logging may be told to make


def refuse(key: str, name: str, known: Sequence[str]) -> None:
    """Raise `InputError` for a `name` of code unless it, or a package that it is in, is `known`."""
    if not any(re.match(rf"{re.escape(package)}(?![^.:])", name) for package in known):
        package = re.split(r"[.:]", name)[0]
        raise InputError(
            f"{key}: {name} is no code of trustml's; if you trust it, add allow=[{package}] to the command"
        )


class CarefulLoader(ConfigLoaderImpl):
    """Hydra's loader of YAML, but nothing it returns lets Hydra itself run what the user has not allowed.

    That the parts of a run name no such code is for `build.build` to see to, which makes them.
    """

    allow: tuple[str, ...] = ()

    def load_configuration(self, config_name: str | None, overrides: list[str], *how: Any, **named: Any) -> Any:
        """The config; raises `InputError` where Hydra's part of it names code that is neither Hydra's nor allowed."""
        self.allow += tuple(typed(overrides, "allow"))
        config = super().load_configuration(config_name, overrides, *how, **named)
        plugins = (f"{OURS}.sweeps.callback.Ending", *Plugins.instance().class_name_to_class)
        for key, name in code(OmegaConf.to_container(config.hydra, resolve=False), "hydra"):
            if name not in plugins and not re.fullmatch(LOGGING, name):
                refuse(key, name.removeprefix("ext://"), [*self.allow, *plugins])
        return config

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        found = super()._load_single_config(default, repo)
        for key in COMMAND_LINE:
            if found.provider.startswith(THEIRS) and key in found.config and key not in self.allow:
                file = f"{found.path.removeprefix('file://')}/{default.config_path}.yaml"
                mend = "" if key == "allow" else f", or add allow=[{key}] to it if you trust the file"
                raise InputError(f"{key}: not for {file} to set; give it on the command line{mend}")
        return found


def typed(words: list[str], key: str) -> list[str]:
    """What the overrides in a command line set the keys to that match `key`; a single value is a list of one."""
    parsed = OverridesParser.create().parse_overrides(words)
    values = [word.value() for word in parsed if re.fullmatch(key, word.key_or_group)]
    return [str(one) for value in values for one in (value if isinstance(value, list) else [value])]


def code(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every name of code in a config of Hydra's or of Python's logging, with its key."""
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, str) and (name in ("_target_", "()", "class") or value.startswith("ext://")):
                yield f"{key}.{name}", value
            else:
                yield from code(value, f"{key}.{name}")


def mode_of(hydra: hydra_itself.Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """The run mode that a config asks for; None where the flags of the command line decide.

    To look, Hydra composes the whole config once more (0.2 s at every start). None of our files sets `hydra.mode`, and
    somebody else's may only under `allow=[hydra]`; so we look only where a word of the command speaks of Hydra.
    """
    return GET_MODE(hydra, config_name, overrides) if any("hydra" in word for word in overrides) else None


GET_MODE = hydra_itself.Hydra.get_mode


def be_careful() -> None:
    """Have Hydra load YAML with care from here on, and no more often than it must."""
    vars(hydra_itself)["ConfigLoaderImpl"] = CarefulLoader
    vars(hydra_itself)["Hydra"].get_mode = mode_of
