"""Resuming a sweep: its command is read from its directory, except for what only the user may set."""

import shlex
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from trustml_cli.config.messages import quoted
from trustml_cli.config.trust import is_the_users
from trustml_cli.system.errors import InputError
from trustml_cli.system.user_file import MB, read_text, read_yaml

LARGEST = 4 * MB  # bytes of a multirun.yaml
LAUNCHER = ("launcher=", "hydra.launcher.", "hydra.sweeper.")
HOW = ("resume=", "launcher=", "hydra.", "hydra/")  # words that say how jobs are launched; all others define the jobs


def resumed_words(overrides: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The command line with `resume=true` or `resume=DIRECTORY` replaced by the overrides that continue that sweep.

    `resume=true` continues the newest sweep of the same command, or starts a new one; a directory supplies the command.
    Either may use another launcher than before. Any other command line is returned unchanged.
    """
    asked = next((unquoted(word) for word in overrides if word.startswith("resume=")), "false")
    if asked.lower() == "false":
        return [*overrides, *flags]
    others = [word for word in overrides if not word.startswith("resume=")]
    if asked.lower() != "true":
        saved = Path(asked) / "multirun.yaml"
        if not saved.is_file():
            raise InputError(f"resume: {asked} is no sweep's directory (there is no {saved}); give one, or true")
        multirun = {"-m", "--multirun"}.isdisjoint(flags) * ["--multirun"]
        words = words_of(saved, others)
        return [*words, "resume=true", into(Path(asked)), *multirun, *own_choices(saved), *flags]
    if {"-m", "--multirun"}.isdisjoint(flags):
        raise InputError("resume: goes with a multirun; add -m, or give the directory of the sweep to continue")
    if any(word.startswith("hydra.sweep.dir=") for word in others):
        return [*overrides, *flags]
    output_dir = next((word.partition("=")[2] for word in others if word.startswith("output_dir=")), "outputs")
    saved_sweeps = sorted(Path(output_dir).glob("multirun/*/multirun.yaml"), reverse=True)
    begun = (saved for saved in saved_sweeps if any(saved.parent.glob("*/run.json")))
    same = (saved for saved in begun if is_of(saved, overrides_of_run(others)))
    return [*others, "resume=true", *(into(saved.parent) for saved in islice(same, 1)), *flags]


def unquoted(word: str) -> str:
    """The value of an override as it was typed, without quotes."""
    value = OverridesParser.create().parse_override(word).value()
    return value if isinstance(value, str) else word.partition("=")[2]


def words_of(saved: Path, typed_now: Sequence[str]) -> list[str]:
    """The command of the sweep with this multirun.yaml, combined with the words typed now.

    What only the user may set must be typed again, because anybody may have written the file. The launcher may differ.
    """
    before = [word for word in saved_words(saved) if launches(word) or overrides_of_run([word])]
    parse = OverridesParser.create().parse_override
    now = {word: parse(word) for word in typed_now}
    for word, said in now.items():
        if word not in before and (not is_the_users(said) or said.key_or_group.endswith(".factory")):
            raise InputError(f"resume: a directory brings its command along; leave out {word}")
    keys = [(said.key_or_group, said.package) for said in now.values()]
    if any(map(launches, typed_now)):
        before = [word for word in before if not launches(word)]
    rest = {word: parse(word) for word in before}
    rest = {word: said for word, said in rest.items() if (said.key_or_group, said.package) not in keys}
    if users := [word for word, said in rest.items() if is_the_users(said)]:
        again = " ".join(map(shlex.quote, users))
        raise InputError(f"resume: {saved} cannot decide this for you; if you mean it, add it to the command: {again}")
    return [*rest, *typed_now]


def launches(word: str) -> bool:
    """Whether an override says how a sweep's jobs are launched."""
    return word.lstrip("+~").startswith(LAUNCHER)


def saved_words(saved: Path) -> list[str]:
    """The overrides in a sweep's multirun.yaml. Raises `InputError` for an entry that is not an override."""
    try:
        content = read_yaml(read_text(saved, LARGEST))
        overrides: Any = content["hydra"]["overrides"]
        words = [*overrides["task"], *overrides["hydra"]]
        for word in words:
            OverridesParser.create().parse_override(word)
    except (TypeError, LookupError, AttributeError, ValueError, OSError, HydraException) as error:
        raise InputError(f"resume: {saved} is not as trustml wrote it; begin the sweep anew") from error
    return words


def is_of(saved: Path, command: Sequence[str]) -> bool:
    """Whether this is the multirun.yaml of a sweep that ran `command`; False for an unreadable file."""
    try:
        return command_of(saved) == command
    except InputError:
        return False


def command_of(saved: Path) -> list[str]:
    """The overrides that define the jobs of the sweep with this multirun.yaml."""
    return overrides_of_run(saved_words(saved))


def own_choices(saved: Path) -> list[str]:
    """The `--config-dir` flag of the sweep with this multirun.yaml, if it had one."""
    try:
        sources = read_yaml(read_text(saved, LARGEST))["hydra"]["runtime"]["config_sources"]
        known = [source for source in sources if Path(source["path"]).is_absolute()]
    except (TypeError, LookupError, ValueError, OSError):  # it had none, or another program wrote the file
        return []
    return config_dir(known)


def config_dir(sources: Iterable[Any]) -> list[str]:
    """`--config-dir` as the user gave it, from Hydra's list of config sources; empty without one."""
    given = [source["path"] for source in sources if source.get("provider") == "command-line"]
    return [word for path in given for word in ("--config-dir", path)]


def as_written(words: Any) -> list[str]:
    """The overrides in a list of Hydra's config, with every ${...} unresolved."""
    written: Any = OmegaConf.to_container(words, resolve=False)
    return list(written)


def overrides_of_run(words: Iterable[str]) -> list[str]:
    """The overrides among the words of a command that define its jobs."""
    return [word for word in words if not word.lstrip("+~").startswith(HOW)]


def into(sweep: Path) -> str:
    """The override that makes Hydra reuse this sweep directory."""
    return f"hydra.sweep.dir={quoted(str(sweep))}"
