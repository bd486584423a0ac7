"""Sweeps of many tiny jobs: a row for each, memory that does not grow, and little time between them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pandas
import pytest

# next to nothing to do: two epochs of a linear model, no attack, no picture
TINY = ["task=fgsm", "trainer=smoke", "model=logistic", "task.epsilon=0", "task.check_images=0"]
TICKS = os.sysconf("SC_CLK_TCK")

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to look into")


class Sample(NamedTuple):
    """A process after so many jobs: MB in memory, seconds of CPU."""

    jobs: int
    memory: float
    cpu: float


def looked_at(process: int, jobs: int) -> Sample | None:
    try:
        status = Path(f"/proc/{process}/status").read_text()
        times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    held = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    return Sample(jobs, held[0] / 1024, (int(times[11]) + int(times[12])) / TICKS) if held else None


def sweep(tmp_path: Path, cache_dir: Path, jobs: int) -> tuple[Path, list[Sample]]:
    """A sweep over so many seeds in a process of its own, looked at after each job."""
    words = [*TINY, f"seed={','.join(map(str, range(jobs)))}", f"hydra.sweep.dir={tmp_path}/sweep"]
    environment = {**os.environ, "TRUSTML_CACHE_DIR": str(cache_dir), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "out.txt").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "trustml_cli", "-m", *words],
            cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
        samples: list[Sample] = []
        try:
            while process.poll() is None:
                ended = (tmp_path / "out.txt").read_text().count("\nresults are in")  # of a job, not of them all
                sample = looked_at(process.pid, ended)
                if sample and ended > (samples[-1].jobs if samples else 0):
                    samples.append(sample)
                time.sleep(0.05)
        finally:
            process.kill()
    assert process.returncode == 0, (tmp_path / "out.txt").read_text()[-2000:]
    return tmp_path / "sweep", samples


def after(samples: list[Sample], jobs: int) -> Sample:
    """The first sample after so many jobs."""
    return next(sample for sample in samples if sample.jobs >= jobs)


def check(folder: Path, samples: list[Sample], jobs: int, warm: int, growth: float) -> None:
    table = pandas.read_csv(folder / "sweep.csv")
    assert sorted(table.seed) == list(range(jobs))
    assert set(table.status) == {"completed"}
    first, last = after(samples, warm), samples[-1]
    print([sample for sample in samples if sample.jobs in (1, 10, 20, 50, 100, 250, 400, jobs)])  # noqa: T201
    each = (last.cpu - first.cpu) / (last.jobs - first.jobs)
    print(f"{each:.3f} s of CPU for each job; {last.memory - first.memory:+.1f} MB after the first {warm}")  # noqa: T201
    assert each <= 0.5, "and that is all that a job takes, its own work included"
    assert last.memory - first.memory <= growth


@needs_proc
def test_a_sweep_of_many_tiny_jobs_has_a_row_for_each_and_takes_no_more_memory_for_each(
    tmp_path: Path, cache_dir: Path
) -> None:
    folder, samples = sweep(tmp_path, cache_dir, 20)
    check(folder, samples, jobs=20, warm=10, growth=20)


@needs_proc
@pytest.mark.faults
def test_a_sweep_of_500_jobs_has_500_rows_and_flat_memory(tmp_path: Path, cache_dir: Path) -> None:
    folder, samples = sweep(tmp_path, cache_dir, 500)
    check(folder, samples, jobs=500, warm=100, growth=20)
