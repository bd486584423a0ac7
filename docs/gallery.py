"""Makes the pictures of the gallery: `python docs/gallery.py [TASK …]` runs each task on the embedded digits.

Each picture goes to docs/gallery/TASK.png, at most `LARGEST` bytes. `report` is the page of the run of task=fgsm, as
Chromium shows it, which docs/runs.md has.
"""

import os
import shutil
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
    "attack": (["model=mlp"], "robustness"),
    "backdoor": ([], "samples"),
    "backdoor_transfer": ([], "accuracy"),
    "bnn": ([], "curves"),
    "calibrate": ([], "reliability"),
    "conformal": ([], "sizes"),
    "corrupt": ([], "accuracy"),
    "credibility": ([], "credibility"),
    "debias": ([], "density_sex"),
    "defensive_distillation": ([], "temperature"),
    "detect_backdoor": ([], "scores"),
    "distill": ([], "accuracy"),
    "explain": ([], "side_by_side"),
    "fgsm": (["model=cifar_cnn"], "robustness"),
    "fooling": ([], "images"),
    "forget": ([], "forgetting"),
    "inspect_backdoor": ([], "masks"),
    "invert": ([], "none"),
    "membership": ([], "roc"),
    "norms": ([], "pairs"),
    "ood": ([], "roc"),
    "overfit": ([], "fits_polynomial"),
    "pate": ([], "votes"),
    "physical": ([], "worn"),
    "predict": ([], "files"),
    "rectify": ([], "accuracy"),
    "robust_train": ([], "defended"),
    "shift": ([], "map"),
    "steal": ([], "agreement"),
    "train": ([], "confusion"),
    "universal": ([], "transfer_epsilon_0.2"),
}
"""What follows `task=TASK` in the command of each task, and the plot that is shown."""

THREADS = {"fgsm": "2"}
"""The number of threads of a task, where it is not 1: README shows fgsm as most machines draw it."""

REPORT = "report"
PAGE = (1000, 1120)  # width and height in pixels of the part of the page that is shown


def run(task: str) -> Image.Image:
    """Run a task in a directory that is deleted afterwards, and return its picture, or that of its page."""
    words, plot = PICTURES["fgsm" if task == REPORT else task]
    with TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "trustml_cli",
            f"task={'fgsm' if task == REPORT else task}",
            *words,
            f"hydra.run.dir={folder}/run",
        ]
        threads = {"OMP_NUM_THREADS": THREADS.get(task, "1")}
        subprocess.run(command, check=True, cwd=folder, env={**os.environ, **threads})
        if task == REPORT:
            return screenshot(Path(folder, "run", "report.html"))
        return Image.open(Path(folder, "run", "plots", f"{plot}.png")).convert("RGB")


def screenshot(page: Path) -> Image.Image:
    """The upper part of a page in Chromium. Raises `FileNotFoundError` if there is none."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise FileNotFoundError("chromium: not found; it draws the picture of a page")
    shot = page.with_suffix(".png")
    size = f"--window-size={PAGE[0]},{PAGE[1]}"
    words = ["--headless", "--no-sandbox", "--hide-scrollbars", size, f"--screenshot={shot}", page.as_uri()]
    subprocess.run([browser, *words], check=True, capture_output=True)
    return Image.open(shot).convert("RGB")


def save(picture: Image.Image, file: Path) -> None:
    """Write a picture as wide as its size in bytes allows. Raises `ValueError` if no width does."""
    for width in WIDTHS:
        small = picture.copy()
        small.thumbnail((width, width), Image.Resampling.LANCZOS)
        # rare colours are kept, and k-means brings the common ones back to their own
        palette = small.quantize(64, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        palette.save(file, optimize=True)
        if file.stat().st_size <= LARGEST:
            return
    raise ValueError(f"{file}: larger than {LARGEST} bytes at {WIDTHS[-1]} pixels")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or (*PICTURES, REPORT):
        save(run(name), FOLDER / f"{name}.png")
