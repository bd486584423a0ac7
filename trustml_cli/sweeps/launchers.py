"""Fixes for Hydra's launchers and sweepers.

A job whose process is killed does not end other jobs, and sweepers compose fewer configs before the first job.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus

from trustml_cli.config.groups import share_of_cores
from trustml_cli.config.hydra_internals import (
    replace_check_of_jobs,
    replace_joblib_pool,
    replace_ray,
    replace_submitit_results,
)
from trustml_cli.system.signals import handle_termination
from trustml_cli.system.streams import forgive_streams

LAST_WORDS = 15.0  # seconds; most job managers wait 30 before they kill a process that they have asked to end

Call = tuple[Callable[..., JobReturn], tuple[Any, ...], dict[str, Any]]
"""A function with its arguments, as joblib's `delayed` packs them."""


def outlive_killed_jobs(launcher: str) -> None:
    """Make the launcher of this class continue when one of its jobs is killed.

    By default, joblib cancels all jobs that have not ended, and submitit and Ray stop waiting for those that run.
    """
    if launcher.startswith("hydra_plugins.hydra_joblib_launcher."):
        replace_joblib_pool(SeparateProcesses)
    if launcher.startswith("hydra_plugins.hydra_ray_launcher."):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no data that the user did not ask for
        replace_ray(RayOrLost)
    if launcher.startswith("hydra_plugins.hydra_submitit_launcher."):
        replace_submitit_results(results_or_lost)


def check_each_kind_once() -> None:
    """Make sweepers compose one job of each kind before the first begins; Hydra composes them all, 0.1 s each.

    Jobs are of one kind if they differ only in plain values of keys that are not groups: these values do not affect
    whether a config can be composed.
    """

    def validate(sweeper: Any, batch: Sequence[Sequence[str]]) -> None:
        loader = sweeper.hydra_context.config_loader
        for words in {kind(words, loader): words for words in batch}.values():
            loader.load_sweep_config(sweeper.config, list(words))

    replace_check_of_jobs(validate)


def kind(words: Sequence[str], loader: ConfigLoader) -> tuple[str, ...]:
    """The overrides of a job, without the values that do not affect whether it can be composed."""
    pairs = [word.partition("=") for word in words]
    return tuple(
        key if re.fullmatch(r"[\w.-]+", value) and not loader.get_group_options(key) else f"{key}={value}"
        for key, _, value in pairs
    )


def lost() -> JobReturn:
    """The result passed to Hydra for a killed job: a regular end. Its run.json shows that it was killed."""
    return JobReturn(status=JobStatus.COMPLETED, _return_value=1)


class SeparateProcesses:
    """Replaces joblib's `Parallel`: one process per job instead of a pool, which one killed process would break.

    The processes share the cores of the machine, unless OMP_NUM_THREADS sets the threads of each. Options other than
    `n_jobs` configure pools and are ignored.
    """

    def __init__(self, n_jobs: int, **options: Any) -> None:
        self.n_jobs = n_jobs

    def __call__(self, calls: Iterable[Call]) -> list[JobReturn]:
        """The results of the calls, in order."""
        from joblib import effective_n_jobs
        from joblib.externals.loky import ProcessPoolExecutor

        calls = list(calls)
        count = min(effective_n_jobs(self.n_jobs), len(calls))
        threads = os.environ.get("OMP_NUM_THREADS") or str(share_of_cores(count))

        def process() -> Any:
            return ProcessPoolExecutor(
                max_workers=1, env={"OMP_NUM_THREADS": threads}, initializer=begin_process, initargs=(os.getpid(),)
            )

        def run(call: Call) -> JobReturn:
            function, positional, named = call
            number = idle.get()
            try:
                returned: JobReturn = processes[number].submit(function, *positional, **named).result()
                return returned
            except BrokenProcessPool:
                processes[number] = process()
                return lost()
            except KeyboardInterrupt:  # in that process only; interrupts of this process are not raised in threads
                return lost()
            finally:
                idle.put(number)

        processes = [process() for _ in range(count)]
        idle: SimpleQueue[int] = SimpleQueue()
        for number in range(count):
            idle.put(number)
        with ThreadPoolExecutor(count) as slots:
            jobs = [slots.submit(run, call) for call in calls]
            try:
                returned = [job.result() for job in jobs]
            except BaseException:  # an interrupt: start no further job, and let running jobs write their final state
                slots.shutdown(wait=False, cancel_futures=True)
                running = {job for job in jobs if not job.cancelled()}
                try:
                    tell_to_end(pid for each in processes for pid in list(each._processes or ()))
                    running = wait(running, timeout=LAST_WORDS).not_done
                finally:
                    for each in processes:
                        each.shutdown(kill_workers=bool(running))
                raise
            for each in processes:
                each.shutdown(wait=True)
            return returned


def begin_process(parent: int) -> None:
    """Set up a process of a sweep: it ends on termination signals and after its parent, and ignores output errors."""
    forgive_streams()
    handle_termination()
    die_with(parent)


def tell_to_end(processes: Iterable[int]) -> None:
    """Send processes SIGTERM."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def die_with(parent: int) -> None:
    """End this process soon after its parent, so that a killed sweep leaves no running jobs."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


class RayOrLost:
    """Stands for the module `ray` in Hydra's launcher: a job whose process was killed counts as lost."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    def get(self, job: Any) -> Any:
        """The result of a job."""
        try:
            return self.ray.get(job)
        except self.ray.exceptions.WorkerCrashedError:
            return lost()


def results_or_lost(results: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """Wrap submitit's `Job.results`: a job without a result counts as lost instead of raising."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    def wait(job: Any) -> list[Any]:
        try:
            return results(job)
        except (FailedJobError, UncompletedJobError):
            return [lost()]

    return wait
