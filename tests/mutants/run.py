"""Plant one fault after the other, and see that the tests of `make test` fail for each.

Each `*.patch` beside this file is one fault: a line that says what it is, a line `tests: PATH …` that says where it
should be found, and a diff. The tests in these places are run on a copy of the working tree with the fault in it; where
they pass, the whole of `make test` is run. Exit status 1 if a fault survives that, or if a patch no longer applies.

    python -m tests.mutants.run [--list] [--jobs N] [NAME …]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FAST = "not data and not faults"  # the tests of make test


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


def outcome(mutant: Mutant, jobs: int) -> str:
    """What became of a fault: `found by …`, `SURVIVED` or `OUT OF DATE`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder)
        applied = subprocess.run(
            ["git", "apply", "--unidiff-zero", str(mutant.patch)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if applied.returncode:
            return f"OUT OF DATE: {' '.join(applied.stderr.split())}"
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-n", str(jobs), "-m", FAST, "-p", "no:cacheprovider"]
        for where in (mutant.tests, ["tests"]):
            ended = subprocess.run(
                [*pytest, *where],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if ended.returncode == 1:
                failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.M)
                return f"found by {failed[0] if failed else 'a failing run'}"
            if ended.returncode != 0:
                return f"OUT OF DATE: pytest ended with {ended.returncode}: {ended.stdout[-300:]}{ended.stderr[-300:]}"
        return "SURVIVED"


def main() -> None:
    """Plant the faults that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="say what the faults are, and plant none")
    parser.add_argument("--jobs", type=int, default=2, help="processes of pytest")
    asked = parser.parse_args()
    mutants = [read(patch) for patch in sorted(HERE.glob("*.patch"))]
    if unknown := set(asked.names) - {mutant.name for mutant in mutants}:
        sys.exit(f"no such fault: {', '.join(sorted(unknown))}")
    wanted = [mutant for mutant in mutants if not asked.names or mutant.name in asked.names]
    missed = 0
    for mutant in wanted:
        begun = perf_counter()
        end = "" if asked.list else f": {outcome(mutant, asked.jobs)} ({perf_counter() - begun:.0f} s)"
        missed += ": SURVIVED" in end or ": OUT OF DATE" in end
        sys.stdout.write(f"{mutant.name}: {mutant.what}{end}\n")
        sys.stdout.flush()
    if not asked.list:
        sys.stdout.write(f"{len(wanted) - missed} of {len(wanted)} faults found\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
