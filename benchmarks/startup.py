"""What a command costs before and beside its own work, in processes of their own."""

import json
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
WATCH = """
import json, resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""
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
        runs = [
            {what: measure(command, folder, place) for what, command in commands.items()}
            | {"the same until it tells the first result": until_told(folder, place)}
            for _ in range(n)
        ]
    return [
        Cost(what, median(run[what][0] for run in runs), median(run[what][1] for run in runs), n) for what in runs[0]
    ]


def measure(command: Sequence[str], folder: str, place: dict[str, str]) -> tuple[float, float]:
    """Processor seconds and most memory in MB of one run; raises where it fails."""
    # a process counts the memory of the one that started it, until it begins its own work: that one must be small
    small = [sys.executable, "-I", "-c", WATCH, *command]
    done = subprocess.run(small, cwd=folder, env=place, stdout=subprocess.PIPE, check=True)
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def until_told(folder: str, place: dict[str, str]) -> tuple[float, float]:
    """Processor seconds and most memory in MB of `CACHED` when it prints the first robust accuracy; on Linux."""
    child = subprocess.Popen(CACHED, cwd=folder, env=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout is not None
    proc = Path(f"/proc/{child.pid}")
    for line in child.stdout:
        if "robust_accuracy" in line:
            fields = (proc / "stat").read_text().rpartition(")")[2].split()
            memory = next(row for row in (proc / "status").read_text().splitlines() if row.startswith("VmHWM"))
            found = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(memory.split()[1]) / 1024
            child.communicate()
            return found
    raise RuntimeError("no result was told")
