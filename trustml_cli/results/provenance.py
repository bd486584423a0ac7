"""What a run ran on: the versions of this package and its libraries, the machine, and the memory that was used."""

import platform
import resource
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trustml_cli.system.distribution import own_version

LIBRARIES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "matplotlib", "hydra-core")


def provenance() -> dict[str, Any]:
    """The facts of run.json about the software and the platform."""
    return {
        "trustml": own_version(),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def git_commit() -> str | None:
    """The commit of the checkout that trustml runs from; None for an installed package, or without git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def peak_memory() -> dict[str, float]:
    """Peak memory of this process in MB: of the machine, and of each GPU that was used."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"cpu": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        for number in range(torch.cuda.device_count()):
            if most := torch.cuda.max_memory_allocated(number):
                peak[f"cuda:{number}"] = round(most / 1e6, 1)
    return peak
