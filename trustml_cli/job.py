"""One job: build the objects that the config names, pass them to the task's handler, record the outcome."""

import logging
import os
import re
from contextlib import suppress
from functools import partial
from inspect import Parameter, signature
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trustml_cli.config.groups import (
    changed,
    config_folder,
    flat,
    register_resolvers,
)
from trustml_cli.config.instantiate import build, build_as, nearest
from trustml_cli.config.loader import install_careful_loader, search_working_directory
from trustml_cli.config.messages import explain
from trustml_cli.config.spellings import notes
from trustml_cli.config.trust import Permissions, typed_values
from trustml_cli.results.log_line import headline_table
from trustml_cli.results.masking import masked, masked_yaml
from trustml_cli.results.recorder import DOES_NOT_COUNT, Recorder
from trustml_cli.sweeps.callback import SweepCallback, register_job
from trustml_cli.sweeps.resume import as_written, config_dir, overrides_of_run
from trustml_cli.system.errors import InputError, error_line, prefix_errors, traceback_wanted
from trustml_cli.system.owners import require_own
from trustml_cli.system.progress import duration, lines_of_progress
from trustml_cli.system.signals import exit_status, handle_termination, signals_ignored, words_for
from trustml_cli.system.streams import print_error
from trustml_cli.system.yaml_text import parse_yaml

log = logging.getLogger(__name__)

MEMORY_KEYS = re.compile(r"(.*\.)?(batch_size|(\w+_)?images|samples|limit)")  # keys that decide how much memory is used
COMMON_GROUPS = ("task", "trainer", "model", "dataset", "tracker")  # groups of config.yaml, needed or not
CALIBRATOR = "calibrator"  # a group that the context needs, not the handler

# at import time, because launcher processes import only this file before they call `job`
register_resolvers()
install_careful_loader()
logging.raiseExceptions = False  # a failed write to the log must not print a traceback


def job(config: DictConfig) -> int:
    """Run one job, from the config to the finished run directory; returns the exit status.

    All exceptions except an interrupt are recorded and reported in one line.
    """
    hydra_config = HydraConfig.get()
    words = as_written(hydra_config.overrides.task)
    resume = "resume=true" in (word.lower() for word in words)
    what_counts = OmegaConf.masked_copy(config, [str(key) for key in config if key not in DOES_NOT_COUNT])
    resolved = masked_yaml(as_yaml(what_counts))
    record = Recorder(
        directory=Path(hydra_config.runtime.output_dir),
        choices=hydra_config.runtime.choices,
        seed=parse_yaml(resolved).get("seed"),
        config=resolved,
        command=[
            "trustml",
            *config_dir(hydra_config.runtime.config_sources),
            *masked(overrides_of_run(words)),
        ],
        write_page=write_page,
    )
    number = job_number()
    if number is not None:
        record.facts["job"] = number
        log.info(
            "\njob %d of %s: %s", number + 1, os.environ.get(SweepCallback.JOBS, "?"), " ".join(record.command[1:])
        )
    if notes():
        log.log(logging.DEBUG if number else logging.INFO, notes())
    present = partial(register_job, number, record.directory) if number is not None else dict
    try:
        if "SUBMITIT_EXECUTOR" in os.environ:
            handle_termination(whatever_was_set=True)  # submitit replaces the handler by one that ignores SIGTERM
        if config.get("resume") is not False and (number is None or not resume):
            raise InputError("resume: counts on the command line only, as resume=true, and goes with a multirun (-m)")
        taken_back = "SLURM_RESTART_COUNT" in os.environ and record.begun_before  # SLURM requeued the job
        if (resume or taken_back) and record.completed_before:
            log.info("completed before: %s", record.directory)
            present()
            return 0
        record.start(again=resume or taken_back)
        present()
        at_work = f"job {number + 1}" if number is not None else str(record.choices["task"])
        with lines_of_progress(at_work):
            dispatch(config, record)
            record.finish("completed", exit_code=0)
        if number is None:  # a sweep ends with a table of all jobs
            for line in headline_table(record.rows, record.facts.get("conditions", []), record.facts.get("headline")):
                log.info(line)
        page = record.directory / "report.html"
        log.info("after %s, results are in %s; page: %s", duration(record.facts["seconds"]), record.directory, page)
        return 0
    except KeyboardInterrupt as interrupt:
        with signals_ignored(), suppress(OSError):
            record.finish("failed", exit_status(interrupt), error=words_for(interrupt))
        raise
    except Exception as caught:
        unresolved = isinstance(caught, OmegaConfBaseException)
        error = InputError(explain(caught, config_folder(), list(record.command[1:]))) if unresolved else caught
        line, exit_code = error_line(error), 2 if isinstance(error, InputError) else 1
        with suppress(OSError):  # the disk may have failed; its remaining space is for run.json rather than for the log
            record.finish("failed", exit_code, error=line)
            if not record.began:
                present(exit_code=exit_code, error=line)
        log.debug("traceback", exc_info=True)
        if traceback_wanted():
            raise
        print_error(line if exit_code == 2 else f"{line}; see {record.directory / 'trustml.log'}")
        return exit_code


def write_page(folder: Path) -> None:
    """Write report.html; its dependencies are imported only here."""
    from trustml_cli.results.report.page import write_run

    write_run(folder)


def as_yaml(config: DictConfig) -> str:
    """The config as YAML with every ${...} resolved; unresolved if one cannot be, which stops the run later."""
    try:
        return OmegaConf.to_yaml(config, resolve=True)
    except OmegaConfBaseException:
        return OmegaConf.to_yaml(config)


def dispatch(config: DictConfig, record: Recorder) -> None:
    """Build the handler and the parts that it declares by name, then call it."""
    import torch

    from trustml_cli.config.settings import Settings
    from trustml_cli.models.pretrained import as_published
    from trustml_cli.system.hardware import (
        Hardware,
        choose_device,
        keep_freed_memory,
        make_deterministic,
        report_out_of_memory,
        seed_everything,
        select_device,
    )
    from trustml_cli.tasks.context import Context, model_store

    launcher = HydraConfig.get().runtime.choices["launcher"]
    if launcher != "basic" and job_number() is None:
        raise InputError(f"launcher={launcher}: goes with a multirun; add -m")
    groups = {str(key) for key, node in config.items() if isinstance(node, DictConfig)}
    for key in ("cache_dir", "data_dir"):
        if config[key] is None:
            raise InputError(f"{key}: there is no home directory for it; give {key}=DIR, or set TRUSTML_{key.upper()}")
    settings: Settings = build_as(Settings, {key: config[key] for key in config if key not in groups}, key="")
    require_own(settings.cache_dir, shared=True)
    words = as_written(HydraConfig.get().overrides.task)
    if typed_values(words, "allow"):
        search_working_directory()
    make = partial(build, leave=Permissions(words, [settings.data_dir, settings.cache_dir, settings.output_dir]))
    handler = make(config.task, "task")
    if not callable(handler):
        raise InputError(f"task._target_: {config.task._target_} is no task: it cannot be called")
    record.columns = getattr(handler, "columns", None)
    if names := getattr(handler, "identity", None):
        record.choices = {**record.choices, **names}
        record.note(**record.identity)
    wanted = {name: one.default for name, one in signature(handler.__call__).parameters.items() if name != "context"}
    if missing := [name for name, default in wanted.items() if name not in groups and default is Parameter.empty]:
        raise InputError(f"{missing[0]}: task={record.choices['task']} needs a choice of this group in its YAML")
    if unknown := sorted(groups - {*wanted, *COMMON_GROUPS, CALIBRATOR}):
        raise InputError(
            f"{unknown[0]}: task={record.choices['task']} takes no such group; {nearest(unknown[0], wanted)}"
        )
    parts = {name: make(config[name], name) for name in wanted if name in groups}
    calibrator = make(config[CALIBRATOR], CALIBRATOR) if CALIBRATOR in groups else None
    if {"model", "trainer"} <= parts.keys():
        others = parts.get("others", {})
        with prefix_errors("trainer"):
            for each in (parts["model"], *others.values()):
                parts["trainer"].check(each)
        if not parts["trainer"].trains:
            with prefix_errors("model"):
                parts["model"] = as_published(parts["model"])
                others.update({name: as_published(other) for name, other in others.items()})
    with prefix_errors("device"):
        device = choose_device(settings.device, job=job_number() or 0)
    record.note(device=str(device), threads=torch.get_num_threads())
    select_device(device)
    keep_freed_memory()
    make_deterministic(device)
    seed_everything(settings.seed)
    with prefix_errors("compile"):
        hardware = Hardware(device, settings.precision, settings.compile)
    record.note(changed=changed(config, HydraConfig.get().runtime.choices, words))
    record.follow(make(config.tracker, "tracker"))
    with report_out_of_memory(memory_hint(config)):
        handler(Context(settings.seed, hardware, model_store(settings.cache_dir), record, calibrator), **parts)


def memory_hint(config: DictConfig) -> str:
    """Which keys to lower when memory runs out; training names its own key."""
    keys = [key for key in flat(OmegaConf.to_container(config)) if MEMORY_KEYS.fullmatch(key)]  # type: ignore[arg-type]
    return f"lower {' or '.join(key for key in keys if not key.startswith('trainer.'))}, or take a smaller model"


def job_number() -> int | None:
    """The number of this job within a multirun, from 0; None for a single run."""
    hydra_job = HydraConfig.get().job
    return None if OmegaConf.is_missing(hydra_job, "num") else hydra_job.num
