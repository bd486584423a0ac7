"""What Hydra's launchers leave undone: a job whose process is killed takes no other job with it.

And what its sweepers overdo before the first job.
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
from hydra.plugins.sweeper import Sweeper

from trustml_cli.config.groups import share_of_cores
from trustml_cli.system.signals import handle_termination
from trustml_cli.system.streams import forgive_streams

LAST_WORDS = 15.0  # seconds; whoever told this process to end waits for 30 of them, usually

Call = tuple[Callable[..., JobReturn], tuple[Any, ...], dict[str, Any]]
"""A function with its arguments, as joblib's `delayed` packs them."""


def outlive_killed_jobs(launcher: str) -> None:
    """Have the launcher of this class go on when one of its jobs is killed.

    Of themselves, joblib gives up every job that has not ended, and submitit no longer waits for those that run.
    """
    if launcher.startswith("hydra_plugins.hydra_joblib_launcher."):
        from hydra_plugins.hydra_joblib_launcher import _core

        _core.Parallel = SeparateProcesses
    if launcher.startswith("hydra_plugins.hydra_submitit_launcher."):
        from submitit import Job

        waits: Any = Job
        waits.results = results_or_lost(Job.results)


def check_each_kind_once() -> None:
    """Have sweepers compose one job of each kind before the first begins; Hydra composes them all, 0.1 s for each.

    Jobs are of one kind if they differ in plain values of keys that are no groups: these change nothing about whether
    a config can be composed.
    """

    def validate(sweeper: Any, batch: Sequence[Sequence[str]]) -> None:
        loader = sweeper.hydra_context.config_loader
        for words in {kind(words, loader): words for words in batch}.values():
            loader.load_sweep_config(sweeper.config, list(words))

    checks: Any = Sweeper
    checks.validate_batch_is_legal = validate


def kind(words: Sequence[str], loader: ConfigLoader) -> tuple[str, ...]:
    """The overrides of a job, without the values that cannot keep it from being composed."""
    pairs = [word.partition("=") for word in words]
    return tuple(
        key if re.fullmatch(r"[\w.-]+", value) and not loader.get_group_options(key) else f"{key}={value}"
        for key, _, value in pairs
    )


def lost() -> JobReturn:
    """What Hydra is given for a job that was killed: an ending like any other. Its run.json says that it was not."""
    return JobReturn(status=JobStatus.COMPLETED, _return_value=1)


class SeparateProcesses:
    """In place of joblib's `Parallel`: the same processes, but no pool of them that one could break for all.

    They share the cores of the machine, unless OMP_NUM_THREADS says what each shall have. Options other than `n_jobs`
    are for pools and mean nothing here.
    """

    def __init__(self, n_jobs: int, **options: Any) -> None:
        self.n_jobs = n_jobs

    def __call__(self, calls: Iterable[Call]) -> list[JobReturn]:
        """What the calls return, in their order."""
        from joblib import effective_n_jobs
        from joblib.externals.loky import ProcessPoolExecutor

        calls = list(calls)
        count = min(effective_n_jobs(self.n_jobs), len(calls))
        threads = os.environ.get("OMP_NUM_THREADS", str(share_of_cores(count)))

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
            except KeyboardInterrupt:  # in that process alone; one in this process is not raised in a thread
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
            except BaseException:  # an interrupt: begin none that waits, and give those that run time for last words
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
    """What a process of a sweep does first: it ends when told to, or after its parent, and not for want of words."""
    forgive_streams()
    handle_termination()
    die_with(parent)


def tell_to_end(processes: Iterable[int]) -> None:
    """Ask processes to end, as `kill` does."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def die_with(parent: int) -> None:
    """Have this process end soon after its parent, so that a sweep that was killed has no job that goes on."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def results_or_lost(results: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """The `Job.results` of submitit, but a job that has none is lost instead of raising."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    def wait(job: Any) -> list[Any]:
        try:
            return results(job)
        except (FailedJobError, UncompletedJobError):
            return [lost()]

    return wait
