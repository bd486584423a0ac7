"""What a command costs before and beside its own work, in processes of their own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

TORCH = (sys.executable, "-c", "import torch")
HELP = (sys.executable, "-m", "trustml_cli", "--help")
CACHED = (sys.executable, "-m", "trustml_cli", "task=fgsm", "model=cifar_cnn")


@dataclass(frozen=True)
class Cost:
    """Processor seconds (all threads, user and system) and most memory in MB of a command; medians of `n` runs."""

    what: str
    seconds: float
    memory: float
    n: int


def startup(n: int) -> list[Cost]:
    """Importing torch, the help, and a run on digits whose network is in the store; in turn."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {"import torch": TORCH, "trustml --help": HELP, "trustml task=fgsm, network in the store": CACHED}
        place = {**os.environ, "TRUSTML_CACHE_DIR": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        place["PYTHONPATH"] = str(Path(__file__).parent.parent)
        for command in commands.values():
            measure(command, folder, place)
        runs = [{what: measure(command, folder, place) for what, command in commands.items()} for _ in range(n)]
    return [
        Cost(what, median(run[what][0] for run in runs), median(run[what][1] for run in runs), n) for what in commands
    ]


def measure(command: Sequence[str], folder: str, place: dict[str, str]) -> tuple[float, float]:
    """Processor seconds and most memory in MB of one run; raises where it fails."""
    process = subprocess.Popen(command, cwd=folder, env=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {errors.strip()}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
