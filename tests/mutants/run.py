"""Plant one fault after the other, and see that the tests of `make test` fail for each.

Each `*.patch` beside this file is one fault: a line that says what it is, a line `tests: PATH …` that says where it
should be found, and a diff. The tests in these places are run on a copy of the working tree with the fault in it; where
they pass, the whole of `make test` is run. Exit status 1 if a fault survives that, or if a patch no longer applies.

    python -m tests.mutants.run [--list] [--jobs N] [NAME …]

Each fault gets a fork of this process, which has imported the libraries that take seconds, but nothing of the project.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FAST = ["-x", "-q", "-m", "not data and not faults", "-p", "no:cacheprovider"]  # the tests of make test
SLOW = ("torch", "torchvision", "pandas", "matplotlib.pyplot", "scipy.stats", "scipy.optimize", "sklearn.svm", "hydra")


@dataclass(frozen=True)
class Mutant:
    """A fault: what it is, the tests that should find it, and the patch that plants it."""

    name: str
    what: str
    tests: list[str]
    patch: Path


def read(patch: Path) -> Mutant:
    """The fault in a file."""
    what, tests = patch.read_text(encoding="utf-8").splitlines()[:2]
    if not (found := re.fullmatch(r"tests: (.+)", tests)):
        sys.exit(f"{patch}: the second line must be 'tests: PATH …'")
    return Mutant(patch.stem, what, found[1].split(), patch)


def copy_tree(folder: Path) -> None:
    """What git tracks, as it stands in the working tree."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())


def run_here(folder: Path, words: list[str], log: Path) -> None:
    """Run pytest on the copy in `folder`, in this process, a fork, and end it."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # those of the original
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        code = pytest.main([*words, "-W", "ignore::pytest.PytestAssertRewriteWarning"])
        file.flush()
    os._exit(int(code))


def outcome(mutant: Mutant, jobs: int) -> str:
    """What became of a fault: `found by …`, `SURVIVED` or `OUT OF DATE`."""
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name) / "tree", Path(name) / "log"
        copy_tree(folder)
        plant = ["git", "apply", "--unidiff-zero", str(mutant.patch)]
        applied = subprocess.run(plant, cwd=folder, capture_output=True, text=True, check=False)
        if applied.returncode:
            return f"OUT OF DATE: {' '.join(applied.stderr.split())}"
        for words in ([*FAST, *mutant.tests], [*FAST, "-n", str(jobs)]):
            if (child := os.fork()) == 0:
                run_here(folder, words, log)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said = log.read_text(encoding="utf-8", errors="replace")
            if code == 1:
                failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
                return f"found by {failed[0] if failed else 'a failing run'}"
            if code != 0:
                return f"OUT OF DATE: pytest ended with {code}: {said[-300:]}"
        return "SURVIVED"


def outcomes(mutants: list[Mutant], jobs: int) -> Iterator[str]:
    """A line for each fault, as they come, `jobs` of them at a time."""
    waiting, running = list(mutants), dict[int, int]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, begun = waiting.pop(0), perf_counter()
            reading, writing = os.pipe()
            if (child := os.fork()) == 0:
                line = f"{mutant.name}: {mutant.what}: {outcome(mutant, jobs)} ({perf_counter() - begun:.0f} s)"
                os.write(writing, line.encode()[:4000])
                os._exit(0)
            os.close(writing)
            running[child] = reading
        child, _ = os.wait()
        with os.fdopen(running.pop(child)) as pipe:
            yield pipe.read()


def main() -> None:
    """Plant the faults that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="say what the faults are, and plant none")
    parser.add_argument("--jobs", type=int, default=2, help="how many faults at a time")
    asked = parser.parse_args()
    mutants = [read(patch) for patch in sorted(HERE.glob("*.patch"))]
    if unknown := set(asked.names) - {mutant.name for mutant in mutants}:
        sys.exit(f"no such fault: {', '.join(sorted(unknown))}")
    wanted = [mutant for mutant in mutants if not asked.names or mutant.name in asked.names]
    if asked.list:
        sys.stdout.write("".join(f"{mutant.name}: {mutant.what}\n" for mutant in wanted))
        return
    for name in SLOW:
        importlib.import_module(name)
    found = 0
    for line in outcomes(wanted, asked.jobs):
        found += ": found by " in line
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{found} of {len(wanted)} faults found\n")
    sys.exit(0 if found == len(wanted) else 1)


if __name__ == "__main__":
    main()
