"""The end of a run or of a multirun: which exit status the whole command has."""

import json
import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Ending(Callback):
    """Hydra calls this when all jobs have ended, wherever they ran; `exit_code` is for `run.main` to read."""

    exit_code = 0

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """A single run: its own status."""
        job_return: JobReturn = kwargs["job_return"]
        Ending.exit_code = job_return._return_value or 0  # its property raises what the job raised

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """A multirun: name the jobs that failed, and take the worst of their statuses."""
        jobs = read_jobs(Path(config.hydra.sweep.dir))
        failed = [(folder, facts) for folder, facts in jobs if facts["status"] != "completed"]
        for folder, facts in failed:
            sys.stderr.write(f"trustml: failed: {folder}: {facts.get('error', 'ended without a word')}\n")
        sys.stderr.write(
            f"trustml: {len(jobs) - len(failed)} of {len(jobs)} jobs completed in {config.hydra.sweep.dir}\n"
        )
        # a failed run outweighs a bad input: 1 says that something was computed and lost
        Ending.exit_code = min((facts.get("exit_code") or 1 for _, facts in failed), default=0)


def read_jobs(sweep: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every job's directory below `sweep` with what its run.json says, in the order in which they started."""
    jobs = [(path.parent, json.loads(path.read_text(encoding="utf-8") or "{}")) for path in sweep.rglob("run.json")]
    return sorted(jobs, key=lambda job: str(job[1].get("started")))
