"""Images for tests that need a folder of them."""

from pathlib import Path

from PIL import Image


def folder_of_images(root: Path, names: list[str], count: int = 1) -> None:
    """Images that differ from class to class, in the layout of dataset=image_folder."""
    for split in ("train", "test"):
        for level, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), 20 * level + number).save(root / split / name / f"{number}.png")
