"""The one entry: compose the config, build what it names, hand it to the task's handler, record how it ended."""

import logging
import os
import sys
from argparse import ArgumentError
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trustml_cli.cli.commands import COMMANDS, answer
from trustml_cli.config.groups import (
    changed,
    config_folder,
    flat,
    help_text,
    refuse_nameless_choices,
    register_resolvers,
)
from trustml_cli.config.instantiate import build, build_as, nearest
from trustml_cli.config.loader import be_careful, look_beside
from trustml_cli.config.messages import explain
from trustml_cli.config.trust import Leave, typed
from trustml_cli.results.masking import masked, masked_yaml
from trustml_cli.results.recorder import DOES_NOT_COUNT, Recorder
from trustml_cli.sweeps.callback import Ending, add_up, attend, attended, refuse_repetition
from trustml_cli.sweeps.resume import as_written, config_dir, resumed_words, what_is_run
from trustml_cli.system.errors import NOT_WRITABLE, InputError, naming, told, trouble_with_files
from trustml_cli.system.owners import require_own
from trustml_cli.system.printable import printable
from trustml_cli.system.signals import exit_status, interrupt_when_told_to_end, undisturbed, words_for
from trustml_cli.system.streams import lost_output, say

log = logging.getLogger(__name__)

LESS = ("batch_size", "images", "samples", "limit")  # last parts of keys that memory is a matter of
EVERYWHERE = ("task", "trainer", "model", "dataset", "tracker")  # groups of config.yaml, be they needed or not
TRACEBACK = "TRUSTML_TRACEBACK"  # the user's HYDRA_FULL_ERROR, before this program sets that for itself

# here, for the processes of a launcher come to `job` by importing this file
register_resolvers()
be_careful()
logging.raiseExceptions = False  # a log that cannot be written is no reason for a traceback in the user's face


def job(config: DictConfig) -> int:
    """One run, from config to finished run directory; returns the exit status.

    Whatever goes wrong is recorded and reported in one line; only an interrupt gets out.
    """
    hydra_config = HydraConfig.get()
    resume = config.get("resume") is True
    what_counts = OmegaConf.masked_copy(config, [str(key) for key in config if key not in DOES_NOT_COUNT])
    resolved = masked_yaml(as_yaml(what_counts))
    record = Recorder(
        directory=Path(hydra_config.runtime.output_dir),
        choices=hydra_config.runtime.choices,
        seed=yaml.safe_load(resolved).get("seed"),
        config=resolved,
        command=[
            "trustml",
            *config_dir(hydra_config.runtime.config_sources),
            *masked(what_is_run(as_written(hydra_config.overrides.task))),
        ],
    )
    number = job_number()
    if number is not None:
        record.facts["job"] = number
        log.info("\njob %d of %s: %s", number + 1, os.environ.get(Ending.JOBS, "?"), " ".join(record.command[1:]))
    present = partial(attend, number, record.directory) if number is not None else dict
    try:
        if "SUBMITIT_EXECUTOR" in os.environ:
            interrupt_when_told_to_end(whatever_was_set=True)  # submitit passes SIGTERM over
        if resume and record.completed_before:
            log.info("completed before: %s", record.directory)
            present()
            return 0
        record.start(again=resume or "SLURM_RESTART_COUNT" in os.environ)  # SLURM may take a job back and begin it anew
        present()
        record.note(changed=changed(config, hydra_config.runtime.choices))
        dispatch(config, record)
        record.finish("completed", exit_code=0)
        log.info("results are in %s", record.directory)
        return 0
    except KeyboardInterrupt as interrupt:
        with undisturbed(), suppress(OSError):
            record.finish("failed", exit_status(interrupt), error=words_for(interrupt))
        raise
    except Exception as caught:
        unresolved = isinstance(caught, OmegaConfBaseException)
        error = InputError(explain(caught, config_folder(), list(record.command[1:]))) if unresolved else caught
        line, exit_code = told(error), 2 if isinstance(error, InputError) else 1
        with suppress(OSError):  # where the disk is what failed; what room is left is for this, not for the log
            record.finish("failed", exit_code, error=line)
            if not record.began:
                present(exit_code=exit_code, error=line)
        log.debug("traceback", exc_info=True)
        if traceback_wanted():
            raise
        complain(line if exit_code == 2 else f"{line}; see {record.directory / 'trustml.log'}")
        return exit_code


def as_yaml(config: DictConfig) -> str:
    """The config as text with every ${...} resolved; as it stands where one cannot be, which stops the run later."""
    try:
        return OmegaConf.to_yaml(config, resolve=True)
    except OmegaConfBaseException:
        return OmegaConf.to_yaml(config)


def dispatch(config: DictConfig, record: Recorder) -> None:
    """Build the handler and the parts that it asks for by name, then let it run."""
    import torch

    from trustml_cli.config.settings import Settings
    from trustml_cli.system.hardware import (
        Hardware,
        begin_on,
        choose_device,
        compute_repeatably,
        keep_freed_memory,
        report_out_of_memory,
        seed_everything,
    )
    from trustml_cli.tasks.context import Context, model_store

    launcher = HydraConfig.get().runtime.choices["launcher"]
    if launcher != "basic" and job_number() is None:
        raise InputError(f"launcher={launcher}: goes with a multirun; add -m")
    groups = {str(key) for key, node in config.items() if isinstance(node, DictConfig)}
    settings: Settings = build_as(Settings, {key: config[key] for key in config if key not in groups}, key="")
    require_own(settings.cache_dir, shared=True)
    words = as_written(HydraConfig.get().overrides.task)
    if typed(words, "allow"):
        look_beside()
    make = partial(build, leave=Leave(words, [settings.data_dir, settings.cache_dir, settings.output_dir]))
    handler = make(config.task, "task")
    if not callable(handler):
        raise InputError(f"task._target_: {config.task._target_} is no task: it cannot be called")
    record.columns = getattr(handler, "columns", None)
    wanted = [name for name in signature(handler.__call__).parameters if name != "context"]
    if missing := [name for name in wanted if name not in groups]:
        raise InputError(f"{missing[0]}: task={record.choices['task']} needs a choice of this group in its YAML")
    if unknown := sorted(groups - {*wanted, *EVERYWHERE}):
        raise InputError(
            f"{unknown[0]}: task={record.choices['task']} takes no such group; {nearest(unknown[0], wanted)}"
        )
    parts = {name: make(config[name], name) for name in wanted}
    with naming("device"):
        device = choose_device(settings.device, job=job_number() or 0)
    record.note(device=str(device), threads=torch.get_num_threads())
    begin_on(device)
    keep_freed_memory()
    compute_repeatably(device)
    seed_everything(settings.seed)
    with naming("compile"):
        hardware = Hardware(device, settings.precision, settings.compile)
    record.follow(make(config.tracker, "tracker"))
    with report_out_of_memory(less(config)):
        handler(Context(settings.seed, hardware, model_store(settings.cache_dir), record), **parts)


def less(config: DictConfig) -> str:
    """What to lower where memory runs out; training names its own key."""
    keys = [key for key in flat(OmegaConf.to_container(config)) if key.rpartition(".")[2] in LESS]  # type: ignore[arg-type]
    return f"lower {' or '.join(key for key in keys if not key.startswith('trainer.'))}, or take a smaller model"


def job_number() -> int | None:
    """Which job of a multirun this is, counted from 0; None for a single run."""
    hydra_job = HydraConfig.get().job
    return None if OmegaConf.is_missing(hydra_job, "num") else hydra_job.num


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """The overrides in a command line, and its flags with their values; Hydra takes no overrides on both sides of one.

    Answers --version and --help for ourselves. Refuses an unknown flag in one line; Hydra would print its whole usage.
    """
    if "--version" in words:
        sys.stdout.write(f"trustml {version('trustml')}\n")
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
    for flag in ("experimental_rerun", "config_path", "config_name"):  # the first runs what a pickle says
        if getattr(known, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')}: not taken here; bring choices of your own by --config-dir")
    flags = list(words)
    for word in known.overrides:
        if "=" not in word and not word.startswith("~"):
            raise InputError(f"{word}: no such command; {nearest(word, COMMANDS)}; a key is set by KEY=VALUE")
        flags.remove(word)
    if known.shell_completion and "query=bash" in known.overrides and "COMP_LINE" not in os.environ:
        raise InputError("query=bash: is for the shell to ask, which says in COMP_LINE what was typed")
    refuse_nameless_choices(known.overrides)
    return known.overrides, flags


def require_current_folder() -> None:
    """Raise `InputError` if the current directory is gone: half of Python asks for it."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the current directory is gone; change to one that is there (cd)") from None


def traceback_wanted() -> bool:
    """Whether the user asked for tracebacks; the processes of a launcher know it too."""
    return os.environ.get(TRACEBACK) == "1"


def complain(line: str) -> None:
    """One line on standard error."""
    say(f"trustml: error: {printable(' '.join(line.split()))}\n", to=sys.stderr)


def printed() -> NoReturn:
    """End a command that only prints: with 0, or 1 where standard output did not take it."""
    if why := lost_output():
        complain(f"standard output: {why}")
    sys.exit(1 if why else 0)


def main() -> None:
    """Run the command line and exit with the status that DESIGN's table gives."""
    os.environ[TRACEBACK] = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them over many lines
    try:
        if answer(sys.argv[1:]):
            printed()
        overrides, flags = split_words(sys.argv[1:])
        refuse_repetition(overrides)
        sys.argv[1:] = resumed_words(overrides, flags)
        require_current_folder()
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(job)()
    except KeyboardInterrupt as interrupt:
        if Ending.sweep is not None:
            with undisturbed():
                add_up(Ending.sweep, attended())
        sys.exit(exit_status(interrupt))
    except (InputError, HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        if traceback_wanted():
            raise
        complain(explain(error, config_folder(), sys.argv[1:]))
        sys.exit(2)
    except Exception as error:
        if traceback_wanted():
            raise
        trouble = trouble_with_files(error)
        where = "output_dir: " if trouble else "launcher: " if Ending.sweep else ""
        complain(f"{where}{told(trouble or error)}")
        if Ending.sweep is not None and (runs := attended()):
            sys.exit(add_up(Ending.sweep, runs))
        sys.exit(2 if trouble is None or trouble.errno in NOT_WRITABLE else 1)
    sys.exit(Ending.exit_code)
