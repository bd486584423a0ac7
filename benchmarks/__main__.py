"""`make bench`: measures and writes benchmarks/results.md."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.attacks import curve, gradient_attacks
from benchmarks.interleaved import Ratio
from benchmarks.training import epoch

PEERS = ("torch", "foolbox", "adversarial-robustness-toolbox")
ROUNDS = 5


def main() -> None:
    """Measure everything on one thread and write the table."""
    torch.set_num_threads(1)
    found = [*gradient_attacks(ROUNDS), *curve(ROUNDS), *epoch(-(-ROUNDS // 2))]
    text = page(found)
    path = Path(__file__).with_name("results.md")
    path.write_text(text, encoding="utf-8")


def page(found: list[Ratio]) -> str:
    """The table, and what it was measured with."""
    rows = [
        f"| {one.what} | {one.against} | {one.value:.2f} | {one.ours * 1e3:,.0f} | {one.theirs * 1e3:,.0f} | {one.n} |"
        for one in found
    ]
    versions = ", ".join(f"{name} {installed(name)}" for name in PEERS)
    head = f"""# Speed

Ratios of medians of processor time, measured in turn in one process on one thread; below 1 ours is faster. Results were
seen to be equal before anything was timed. `make bench` measures again and writes this page.

{platform.machine()}, Python {platform.python_version()}, {versions}.

| what | against | ratio | ours, ms | theirs, ms | n |
| --- | --- | --- | --- | --- | --- |
"""
    return head + "\n".join(rows) + "\n"


def installed(name: str) -> str:
    """The version of a package, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


main()
