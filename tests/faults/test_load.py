"""Sweeps of many tiny jobs: a row for each, and memory that does not grow with their number."""

import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from tests.faults.whole import sized

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc to look into"),
]

# next to nothing to do: two epochs of a linear model, no attack, no picture
TINY = ["task=fgsm", "trainer=smoke", "model=logistic", "task.epsilon=0", "task.check_images=0"]

# the command line, which writes down after each job how many pages it holds and how much CPU it has used
COUNTING = """
import sys, time
from pathlib import Path
import trustml_cli.cli.main
from trustml_cli.sweeps.callback import SweepCallback

end = SweepCallback.on_job_end

def on_job_end(self, config, job_return, **more):
    end(self, config, job_return, **more)
    with open("jobs.txt", "a") as file:
        print(Path("/proc/self/statm").read_text().split()[1], time.process_time(), file=file)

SweepCallback.on_job_end = on_job_end
trustml_cli.cli.main.main()
"""


def test_a_sweep_of_many_jobs_has_a_row_for_each_and_flat_memory(tmp_path: Path, cache_dir: Path) -> None:
    jobs, warm = sized((500, 100), (30, 15))
    words = [*TINY, f"seed={','.join(map(str, range(jobs)))}", f"hydra.sweep.dir={tmp_path}/sweep"]
    answer = subprocess.run(
        [sys.executable, "-c", COUNTING, "-m", *words],
        cwd=tmp_path, env={**os.environ, "TRUSTML_CACHE_DIR": str(cache_dir)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (0, ""), answer.stderr
    table = pandas.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert sorted(table.seed) == list(range(jobs))
    assert set(table.status) == {"completed"}
    held = [line.split() for line in (tmp_path / "jobs.txt").read_text().splitlines()]
    megabytes = [int(pages) * os.sysconf("SC_PAGESIZE") / 2**20 for pages, _ in held]
    assert len(held) == jobs
    each = (float(held[-1][1]) - float(held[warm - 1][1])) / (jobs - warm)
    print(f"{each:.3f} s of CPU for each job; {megabytes[-1] - megabytes[warm - 1]:+.1f} MB after {warm}")  # noqa: T201
    assert megabytes[-1] - megabytes[warm - 1] <= 20
