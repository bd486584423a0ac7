"""Makes the pictures of the gallery: `python docs/gallery.py [TASK …]` runs each task on the embedded digits.

Each picture goes to docs/gallery/TASK.png, at most `LARGEST` bytes.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

FOLDER = Path(__file__).parent / "gallery"
WIDTHS = (1000, 860, 720, 600)
"""Widths in pixels that are tried, the widest first."""

LARGEST = 40 * 1024
PICTURES: dict[str, tuple[list[str], str]] = {
    "fgsm": (["model=cifar_cnn"], "robustness"),
}
"""What follows `task=TASK` in the command of each task, and the plot that is shown."""


def make(task: str) -> None:
    """Run a task, and keep its picture."""
    words, plot = PICTURES[task]
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trustml_cli", f"task={task}", *words, f"hydra.run.dir={folder}/run"]
        subprocess.run(command, check=True, cwd=folder)
        picture = Image.open(Path(folder, "run", "plots", f"{plot}.png")).convert("RGB")
    FOLDER.mkdir(exist_ok=True)
    for width in WIDTHS:
        small = picture.copy()
        small.thumbnail((width, width))
        small.quantize(64, dither=Image.Dither.NONE).save(FOLDER / f"{task}.png", optimize=True)
        if (FOLDER / f"{task}.png").stat().st_size <= LARGEST:
            return
    raise ValueError(f"{task}: {plot}.png is larger than {LARGEST} bytes at {width} pixels")


if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        make(name)
