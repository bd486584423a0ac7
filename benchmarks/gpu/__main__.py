"""Measurements on a GPU: `python -m benchmarks.gpu --data DIR --out DIR`, at most eight minutes on one H100.

Each part (see `speed.py` and `checks.py`) runs in a process of its own with a time limit, so that a part that fails or
hangs costs only itself. A figure is printed when it is measured. After each part, all figures so far are written to
`results.json` and `results.md`, and what the parts wrote on standard error to `log.txt`. The exit status is 1 if a
part failed or a check does not hold.

The limits are for a machine that is slow to start; a part usually takes half of its own. `--data` is a `data_dir` with
CIFAR-10 and, for one part, MNIST. `--tiny --device cpu` runs every part on the embedded digits within minutes, to see
that all is connected.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from time import monotonic

from benchmarks.gpu.rows import Row, figures, figures_file

ROOT = Path(__file__).parents[2]
SECONDS = 480  # of all parts together
LEAST = 5  # seconds: a part with less than this left is not started


@dataclass(frozen=True)
class Part:
    """A measurement, by the name of its function, and the most seconds that it may take."""

    name: str
    limit: float
    title: str


TIMED = [  # one after the other: their times count
    Part("card", 60, "The card"),
    Part("fast", 150, "`experiment=cifar_fast`, five seeds"),
    Part("airbench", 60, "airbench's own 94 % run"),
    Part("attacks", 140, "PGD-10 and `standard` against peers"),
    Part("resnet", 120, "ResNet-18 in bf16"),
]
CHECKED = [  # at the same time: what they compute counts
    Part("memory", 45, "Batches that halve when the GPU's memory runs out"),
    Part("smoke", 190, "Every task, on the GPU and on the CPU"),
    Part("robust", 190, "Adversarial training on MNIST under all of AutoAttack"),
]


@dataclass(frozen=True)
class Outcome:
    """How a part ended (`completed`, or what went wrong), its figures, and its seconds."""

    part: Part
    ended: str
    rows: list[Row]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it completed and all its checks hold."""
        return self.ended == "completed" and all(row.holds is not False for row in self.rows)


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts that the command line names, all by default; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("TRUSTML_DATA_DIR", "data")))
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="names of parts, with commas between; all by default")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all parts together")
    parser.add_argument("--tiny", action="store_true", help="the embedded digits and few steps")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.part:
        return measure(options)
    names = options.only.split(",") if options.only else [part.name for part in (*TIMED, *CHECKED)]
    if unknown := set(names) - {part.name for part in (*TIMED, *CHECKED)}:
        parser.error(f"--only: no part {', '.join(sorted(unknown))}")
    timed, checked = ([part for part in parts if part.name in names] for parts in (TIMED, CHECKED))
    with tempfile.TemporaryDirectory(prefix="trustml-gpu-") as folder:
        work = Path(folder)
        command = [sys.executable, "-m", "benchmarks.gpu", "--data", options.data.resolve(), "--work", work]
        command += ["--device", options.device, *(["--tiny"] if options.tiny else [])]
        outcomes = run_all(timed, checked, list(map(str, command)), work, options.out, options.seconds)
    return 0 if all(outcome.good for outcome in outcomes) else 1


def run_all(
    timed: Sequence[Part], checked: Sequence[Part], command: list[str], work: Path, out: Path, seconds: float
) -> list[Outcome]:
    """Run the `timed` parts one after the other, then the `checked` ones at once; writes the results after each."""
    end, outcomes, lock = monotonic() + seconds, [], Lock()
    out.mkdir(parents=True, exist_ok=True)

    def run(part: Part) -> None:
        limit = min(part.limit, end - monotonic())
        outcome = run_part(part, [*command, "--part", part.name, "--limit", str(limit)], work, limit)
        with lock:
            outcomes.append(outcome)
            show(f"[{part.name}] {outcome.ended} after {outcome.seconds:.0f} s")
            write(outcomes, work, out)

    for part in timed:
        run(part)
    with ThreadPoolExecutor(len(checked) or 1) as pool:
        list(pool.map(run, checked))
    return outcomes


def run_part(part: Part, command: list[str], work: Path, limit: float) -> Outcome:
    """Run one part as a process, for `limit` seconds at most; then it and all that it started are killed."""
    if limit < LEAST:
        return Outcome(part, "not started: no time was left", [], 0.0)
    start, log = monotonic(), work / f"{part.name}.log"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("w", encoding="utf-8") as errors:
        child = subprocess.Popen(
            command, cwd=work, env={**os.environ, "PYTHONPATH": path}, stderr=errors, start_new_session=True
        )
        try:
            code = child.wait(limit)
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
            ended = "completed" if code == 0 else f"failed with exit status {code}: {last[:300]}"
        except subprocess.TimeoutExpired:
            ended = f"stopped at its limit of {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return Outcome(part, ended, figures(work, part.name), monotonic() - start)


def measure(options: argparse.Namespace) -> int:
    """Run one part in this process: print its figures, and append them to a file, as they come."""
    from benchmarks.gpu import checks, speed
    from benchmarks.gpu.setup import Setup

    part = getattr(speed, options.part, None) or getattr(checks, options.part)
    options.work.mkdir(parents=True, exist_ok=True)
    setup = Setup(options.data, options.work, options.device, options.limit, options.tiny)
    try:
        with figures_file(options.work, options.part).open("a", encoding="utf-8") as file:
            for row in part(setup):
                show(f"[{options.part}] {row}")
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
    except Exception:
        sys.stderr.write(traceback.format_exc())
        return 1
    return 0


def show(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write(outcomes: Sequence[Outcome], work: Path, out: Path) -> None:
    """Write results.json, results.md and log.txt."""
    (out / "results.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    (out / "results.md").write_text("\n".join(map(section, outcomes)), encoding="utf-8")
    with (out / "log.txt").open("w", encoding="utf-8") as together:
        for log in sorted(work.glob("*.log")):
            together.write(f"==== {log.stem}\n{log.read_text(encoding='utf-8', errors='replace')[-50_000:]}\n")


def section(outcome: Outcome) -> str:
    """The figures of a part as Markdown."""
    lines = [f"## {outcome.part.title}", "", f"{outcome.ended.capitalize()}; {outcome.seconds:.0f} s.", ""]
    if outcome.rows:
        lines += ["| what | figure | n | holds | note |", "| --- | --- | --- | --- | --- |"]
    for row in outcome.rows:
        value = "" if row.value is None else f"{row.value:,.5g} {row.unit}".strip()
        holds = {None: "", True: "yes", False: "**no**"}[row.holds]
        note = row.note.replace("|", "/")
        lines.append(f"| {row.what} | {value} | {row.n or ''} | {holds} | {note} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
