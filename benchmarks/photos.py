"""Photos that are decoded for each batch, from a folder of many files: time and memory, in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

FILES, DISTINCT, CLASSES, SIZE = 100_000, 400, 1000, 224
READ = (1000, 2000, 4000)  # files after which time and memory are noted
BATCH = 50


@dataclass(frozen=True)
class Photos:
    """Processor seconds and peak memory in MB, beyond what the libraries took, of a part of the work on `files`."""

    what: str
    files: int
    seconds: float
    memory: float


def photos() -> list[Photos]:
    """Listing a folder of `FILES` photos, and streaming the first of them."""
    place = {**os.environ, "OMP_NUM_THREADS": "1"}
    with TemporaryDirectory() as folder:
        fill(Path(folder))
        command = [sys.executable, "-m", "benchmarks.photos", folder]
        done = subprocess.run(command, env=place, check=True, stdout=subprocess.PIPE)
    return [Photos(**found) for found in json.loads(done.stdout)]


def fill(folder: Path) -> None:
    """Write `DISTINCT` JPEG files of 320×240 and link them `FILES` times into train/ and test/ of `CLASSES` classes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    (folder / "files").mkdir()
    for number in range(DISTINCT):
        coarse = Image.fromarray(random.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        coarse.resize((320, 240), Image.Resampling.BICUBIC).save(folder / "files" / f"{number}.jpg")
    for number in range(FILES):
        of_class = folder / "root" / ("test" if number % 10 == 0 else "train") / f"{number // 10 % CLASSES:04}"
        of_class.mkdir(parents=True, exist_ok=True)
        os.link(folder / "files" / f"{number % DISTINCT}.jpg", of_class / f"{number}.jpg")


def one(folder: Path) -> list[dict[str, object]]:
    """What `photos` measures, in this process; the photos are decoded in it too."""
    from time import process_time

    import torch

    from benchmarks.growth import peak
    from trustml_cli.data.batches import batches
    from trustml_cli.data.image_folder import ImageFolder, Streaming
    from trustml_cli.system.hardware import keep_freed_memory

    keep_freed_memory()
    source = ImageFolder(
        root=folder / "root", test_fraction=0.2, size=SIZE, channels=3, background=[1.0], stream=Streaming.always,
        workers=0, limit=None,
    )  # fmt: skip
    before, start = peak(), process_time()
    data = source.read(folder / "cache")
    count = len(data.train) + len(data.test)
    found: list[dict[str, object]] = []

    def note(what: str, files: int) -> None:
        found.append({"what": what, "files": files, "seconds": process_time() - start, "memory": peak() - before})

    note("listed, and a digest of each file", count)
    start, done = process_time(), 0
    for x, _ in batches(data.train, BATCH, torch.device("cpu"), order=torch.randperm(len(data.train))[: READ[-1]]):
        done += len(x)
        if done in READ:
            note("decoded in a random order", done)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(one(Path(sys.argv[1]))))
