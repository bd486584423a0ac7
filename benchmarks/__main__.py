"""`make bench`: measures and writes benchmarks/results.md, and growth.png beside it."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.attacks import curve, floor, gradient_attacks, with_memory_kept
from benchmarks.audit import audit
from benchmarks.ensemble import ensemble
from benchmarks.growth import PICTURE, Point, draw, growth
from benchmarks.interleaved import Ratio
from benchmarks.many import many
from benchmarks.packed import packed
from benchmarks.photos import BATCH as PHOTOS
from benchmarks.photos import DISTINCT, FILES, SIZE, Photos, photos
from benchmarks.startup import Cost, startup
from benchmarks.training import epoch

PEERS = (
    "torch",
    "torchmetrics",
    "captum",
    "pytorch-ood",
    "foolbox",
    "adversarial-robustness-toolbox",
    "pyautoattack",
    "torchattacks",
    "numba",
)
ROUNDS = 5
PAGE = Path(__file__).with_name("results.md")


def main() -> None:
    """Measure everything on one thread and write the page."""
    torch.set_num_threads(1)
    few = -(-ROUNDS // 2)
    ratios = [
        *gradient_attacks(ROUNDS),
        floor(ROUNDS),
        *curve(ROUNDS),
        *epoch(few),
        *many(few),
        *packed(ROUNDS),
        *ensemble(few),
        *with_memory_kept(few),
    ]
    costs, points = startup(ROUNDS), growth(few)
    draw(points)
    text = page(ratios, costs, audit(), points, photos())
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def page(
    ratios: list[Ratio], costs: list[Cost], audits: list[Cost], points: list[Point], pictures: list[Photos]
) -> str:
    """The tables, and what they were measured with."""
    versions = ", ".join(f"{name} {installed(name)}" for name in PEERS)
    compared = "\n".join(
        f"| {one.what} | {one.against} | {one.value:.2f} | {one.ours * 1e3:,.0f} | {one.theirs * 1e3:,.0f} | {one.n} |"
        for one in ratios
    )
    started = "\n".join(f"| {one.what} | {one.seconds:.2f} | {one.memory:,.0f} | {one.n} |" for one in costs)
    ours, *theirs = (one.seconds for one in audits)
    asked = "\n".join(f"| {one.what} | {one.seconds:.1f} |" for one in audits)
    grown = "\n".join(
        f"| {one.task} | {one.images:,} | {one.width:,} | {one.classes:,} | {one.seconds:.2f} | {one.memory:,.0f} "
        f"| {one.n} |"
        for one in points
    )
    photographed = "\n".join(
        f"| {one.what} | {one.files:,} | {one.seconds:.2f} | {one.memory:,.0f} |" for one in pictures
    )
    return f"""# Speed

Medians of processor time, measured in turn on one thread; `make bench` measures again and writes this page. Seconds
depend on the machine and on what else it does, ratios less.

{platform.machine()}, Python {platform.python_version()}, {versions}.

## Against peers

In one process; below 1 ours is faster. Results were seen to be equal before anything was timed.

| what | against | ratio | ours, ms | theirs, ms | n |
| --- | --- | --- | --- | --- | --- |
{compared}

## Start-up

Each run in a process of its own.

| command | processor seconds | most memory, MB | n |
| --- | --- | --- | --- |
{started}

## The audit

`study=audit` of `cifar_cnn` on digits against the same axes asked of one library each with the same budgets, each in a
process of its own, once: {ours / sum(theirs):.2f} of the peers' processor seconds. Ours also checks its numbers,
draws and writes its pages; shifts, corruptions and signs of a backdoor are in neither.

| what | processor seconds |
| --- | --- |
{asked}

## Growth

A network of one hidden layer of so many units on random images of 3×32×32: FGSM at three budgets, two epochs of
training. Each run in a process of its own; memory is what it took beyond the network and the libraries.

![Seconds and memory over images and over width]({PICTURE.name})

| task | images | width | classes | processor seconds | memory, MB | n |
| --- | --- | --- | --- | --- | --- | --- |
{grown}

## Photos from a folder

A folder of {FILES:,} JPEG files of 320×240, decoded to {SIZE}×{SIZE} for each batch of {PHOTOS}: of {DISTINCT} distinct
ones, linked. One process; memory is what it took beyond the libraries.

| what | files | processor seconds | most memory, MB |
| --- | --- | --- | --- |
{photographed}
"""


def installed(name: str) -> str:
    """The version of a package, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


main()
