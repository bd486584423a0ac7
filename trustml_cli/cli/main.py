"""The entry point: dispatches commands, splits words and flags, and maps each outcome to an exit status."""

import os
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from trustml_cli.cli.commands import COMMANDS, answer
from trustml_cli.config.groups import config_folder, group_of, help_text, refuse_nameless_choices
from trustml_cli.config.hydra_internals import composing_from, get_args_parser, run_main, split_sweep
from trustml_cli.config.instantiate import nearest
from trustml_cli.config.messages import exists, explain
from trustml_cli.config.spellings import NOTES, notes, understood
from trustml_cli.job import job
from trustml_cli.sweeps.callback import SweepCallback, count_jobs, finish_sweep, refuse_repetition, registered_runs
from trustml_cli.sweeps.resume import resumed_words
from trustml_cli.system.distribution import own_version
from trustml_cli.system.errors import (
    NOT_WRITABLE,
    TRACEBACK,
    InputError,
    error_line,
    file_error_behind,
    one_line,
    traceback_wanted,
    with_kind,
)
from trustml_cli.system.signals import exit_status, signals_ignored
from trustml_cli.system.streams import lost_output, print_error

MULTIRUN = ("-m", "--multirun")
MISTAKES = (InputError, HydraException, OmegaConfBaseException, yaml.YAMLError)
"""Errors that say that the command, a config or an input is wrong."""


def main() -> None:
    """Run the command line and exit with the status that DESIGN's table gives."""
    os.environ[TRACEBACK] = os.environ.get("HYDRA_FULL_ERROR", "0")
    try:
        perform(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        sys.exit(exit_status(interrupt))
    except Exception as error:
        if traceback_wanted():
            raise
        line, status = in_one_line(error)
        print_error(line)
        if not isinstance(error, MISTAKES) and SweepCallback.sweep is not None and (runs := registered_runs()):
            status = finish_sweep(SweepCallback.sweep, runs)
        sys.exit(status)
    sys.exit(SweepCallback.exit_code)


def perform(words: Sequence[str]) -> None:
    """Run the command of these words in this process; `SweepCallback` says how it ended, and where it wrote.

    Raises `SystemExit` for a command that only prints, any of `MISTAKES` for wrong input, and an error of a single run
    if the user wants tracebacks. An interrupted sweep is summed up before the interrupt goes on.
    """
    os.environ[NOTES] = ""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them over many lines
    SweepCallback.forget()
    rest = answer(words or ["--help"])
    if rest is None:
        printed()
    overrides, flags = split_words(rest)
    overrides = understood(overrides, lambda key, words: exists(key, config_folder(), [*words, *flags]))
    refuse_nameless_choices(overrides)  # after fractions have become decimals, without which Hydra reads no range
    refuse_repetition(overrides)
    asked, _ = get_args_parser().parse_known_args(flags)
    if asked.cfg and asked.multirun:
        show_jobs(overrides, [flag for flag in flags if flag not in MULTIRUN])
        return
    if any(word.startswith("study=") for word in overrides) and not asked.multirun and not asked.cfg:
        flags = [*flags, "--multirun"]
    sys.argv[1:] = resumed_words(overrides, flags)
    require_current_folder()
    try:
        run_main(job, config_folder())
    except KeyboardInterrupt:
        if SweepCallback.sweep is not None:
            with signals_ignored():
                finish_sweep(SweepCallback.sweep, registered_runs())
        raise
    if SweepCallback.error is not None:
        raise SweepCallback.error


def show_jobs(overrides: Sequence[str], flags: Sequence[str]) -> None:
    """Print the config of each job of a multirun (`-m … --cfg job`), as YAML documents; a study's own is one."""
    folder = config_folder()
    with composing_from(folder):
        loader = GlobalHydra.instance().config_loader()  # knows the choices that a glob stands for
        count_jobs(overrides)
        jobs = split_sweep(OverridesParser.create(loader).parse_overrides(list(overrides)))
    for number, job_words in enumerate(jobs, start=1):
        sys.stdout.write(f"--- # job {number} of {len(jobs)}: {' '.join(job_words)}\n")
        sys.argv[1:] = [*job_words, *flags]
        run_main(job, folder)


def in_one_line(error: Exception) -> tuple[str, int]:
    """What an error that ended the command says, and the exit status that it means."""
    if isinstance(error, MISTAKES):
        return "; ".join(filter(None, [explain(error, config_folder(), sys.argv[1:]), notes()])), 2
    trouble = file_error_behind(error)
    where = "output_dir: " if trouble else "launcher: " if SweepCallback.sweep else ""
    text = error_line(trouble or error) if trouble or SweepCallback.sweep else uncomposed(error)
    return f"{where}{text}", 2 if trouble is None or trouble.errno in NOT_WRITABLE else 1


def uncomposed(error: Exception) -> str:
    """An error that Hydra raised about a command line or a YAML file, in one line."""
    if isinstance(error, ValueError):
        return one_line(error)
    return f"the configuration cannot be composed ({with_kind(error)}); look for lists, keys or names in a wrong place"


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides and the flags (with values) of a command line; Hydra accepts no overrides on both sides of a flag.

    Handles --version and --help itself. Refuses an unknown flag in one line; Hydra would print its whole usage.
    """
    if "--version" in words:
        sys.stdout.write(f"trustml {own_version()}\n")
        printed()
    if {"--help", "-h"} & set(words):
        sys.stdout.write(f"{help_text()}\n")
        printed()
    parser = get_args_parser()
    try:
        parser.exit_on_error = False
        known, unknown = parser.parse_known_intermixed_args(words)
    except ArgumentError as error:
        raise InputError(str(error)) from error
    if unknown:
        raise InputError(f"{unknown[0]}: no such flag; see trustml --help, and write keys as KEY=VALUE")
    for flag in ("experimental_rerun", "config_path", "config_name"):  # the first would execute a pickle
        if getattr(known, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')}: not taken here; give your own choices by --config-dir")
    flags = list(words)
    for word in known.overrides:
        if "=" not in word and not word.startswith("~"):
            group = group_of(word)
            meant = f"did you mean {group}={word}?" if group else nearest(word, COMMANDS)
            raise InputError(f"{word}: no such command; {meant}; a key is set by KEY=VALUE")
        flags.remove(word)
    if known.shell_completion and "query=bash" in known.overrides and "COMP_LINE" not in os.environ:
        raise InputError("query=bash: only the shell may ask this, with the typed words in COMP_LINE")
    return known.overrides, flags


def require_current_folder() -> None:
    """Raise `InputError` if the current directory has been deleted, since many library calls need it."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the current directory has been deleted; change to another one (cd)") from None


def printed() -> NoReturn:
    """End a command that only prints: with status 0, or 1 if writing to standard output failed."""
    if why := lost_output():
        print_error(f"standard output: {why}")
    sys.exit(1 if why else 0)
