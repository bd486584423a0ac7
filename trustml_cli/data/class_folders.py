"""Image files in folders named after their classes: ROOT/{train,test}/CLASS/…/*.jpg, or ROOT/CLASS/…/*.jpg."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import torch
from PIL import Image

from trustml_cli.data.dataset import check_class_count
from trustml_cli.data.image_file import FORMATS
from trustml_cli.system.errors import InputError, one_line, some_of
from trustml_cli.system.printable import readable

ENDINGS = {ending for ending, format_name in Image.registered_extensions().items() if format_name in FORMATS}
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
ROOT = "dataset.root"
LAYOUT = "images belong in ROOT/{train,test}/CLASS/ or ROOT/CLASS/"


@dataclass(frozen=True)
class Listing:
    """The image files of one split and their class numbers."""

    files: list[Path]
    labels: list[int]


@dataclass(frozen=True)
class ClassFolders:
    """The names of the classes in alphabetical order, the files of `train` and `test`, and notes on both."""

    classes: tuple[str, ...]
    listings: dict[str, Listing]
    notes: tuple[str, ...]


def read_folders(root: Path, test_fraction: float) -> ClassFolders:
    """List the image files below `root`, in subfolders of class folders too, without hidden ones.

    The test set is the folder test, else val or valid; without any, the share `test_fraction` of each class, drawn with
    a fixed seed. Names of classes that are equal but for their Unicode normal form are the same. Raises `InputError`
    where a class is empty, where the splits differ in classes, and for links to nothing or to a folder above.
    """
    notes: list[str] = []
    places = find_splits(root, notes)
    skipped = Counter[str]()
    classes = {split: class_folders(place, skipped) for split, place in places.items()}
    names = sorted(classes["train"])
    if other := sorted(set(names) ^ classes.get("test", classes["train"]).keys()):
        place = {name: places["train" if name in names else "test"].name for name in other}
        same = len({name.casefold() for name in other}) < len(other)
        raise InputError(
            f"dataset.root: {root}: {' and '.join(folder.name for folder in places.values())} differ in class "
            f"{some_of(f'{name!r} (in {place[name]} only)' for name in other)}"
            f"{'; upper and lower case are not the same' if same else ''}"
        )
    listings = {}
    for split, found in classes.items():
        files = [list_pictures(found[name], skipped) for name in names]
        listings[split] = Listing(
            [file for part in files for file in part], [number for number, part in enumerate(files) for _ in part]
        )
    if "test" not in listings:
        listings = divided(listings["train"], names, test_fraction, root)
        held_out, total = len(listings["test"].files), sum(len(part.files) for part in listings.values())
        notes.append(
            f"no folder of test images: {test_fraction:g} of each class, {held_out:,} of {total:,}, are held out"
        )
    if skipped:
        notes.append(left_out(skipped))
    if len({name.casefold() for name in names}) < len(names):
        notes.append("some classes differ in upper and lower case only")
    return ClassFolders(tuple(map(readable, names)), listings, tuple(notes))


def find_splits(root: Path, notes: list[str]) -> dict[str, Path]:
    """The folders of `train` and `test`; `train` alone where nothing is held out."""
    folders = [Path(entry.path) for entry in visible(root, Counter()) if entry.is_dir()]
    train, test = ([path for name in names for path in folders if path.name.lower() == name] for names in (TRAIN, TEST))
    if not train and not test:
        return {"train": root}
    if not train:
        raise InputError(f"dataset.root: no folder {root / 'train'}, but {test[0]}; {LAYOUT}")
    if not test and len(folders) > 1:
        raise InputError(
            f"dataset.root: {root} has {train[0].name}, but none of {', '.join(TEST)}; "
            f"there are {some_of(path.name for path in folders)}"
        )
    if others := [place.name for place in (*train[1:], *test[1:])]:
        notes.append(f"not read, beside {train[0].name} and {test[0].name}: {', '.join(map(readable, others))}")
    return {"train": train[0], **({"test": test[0]} if test else {})}


def class_folders(folder: Path, skipped: Counter[str]) -> dict[str, Path]:
    """The class folders in `folder` by the name of the class; counts what else there is in `skipped`."""
    found: dict[str, Path] = {}
    for entry in visible(folder, skipped):
        if not entry.is_dir():
            skipped["outside of class folders"] += 1
            continue
        name = normalize("NFC", entry.name)
        if name in found:
            raise InputError(f"dataset.root: {folder} has two folders {name!r}, in two Unicode spellings; join them")
        found[name] = Path(entry.path)
    if not found:
        raise InputError(f"dataset.root: {folder} has no class folders; {LAYOUT}")
    check_class_count(len(found), str(folder))
    return found


def list_pictures(folder: Path, skipped: Counter[str]) -> list[Path]:
    """All files with an image extension in the class folder and below; raises `InputError` if there are none."""
    others = Counter[str]()
    found = list(pictures_below(folder, others))
    if not found:
        there = ", ".join(f"{count:,} {what}" for what, count in sorted(others.items()))
        raise InputError(
            f"dataset.root: {folder} holds no images{f' (only {there})' if there else ''}; a class needs at least one"
        )
    skipped.update(others)
    return found


def pictures_below(
    folder: Path, skipped: Counter[str], above: tuple[tuple[int, int], ...] = (), key: str = ROOT
) -> Iterator[Path]:
    """The files with an image extension: those of `folder` in order of their names, then those of its subfolders.

    `key` is the config key that errors name.
    """
    status = folder.stat()
    if (here := (status.st_dev, status.st_ino)) in above:
        raise InputError(f"{key}: {folder} is a link to a folder that it lies in; remove it")
    folders = []
    for entry in visible(folder, skipped, key):
        ending = Path(entry.name).suffix.lower()
        if ending in ENDINGS:
            if not entry.is_file():
                raise InputError(f"{key}: {entry.path} is no file; remove it")
            yield Path(entry.path)
        elif entry.is_dir():
            folders.append(Path(entry.path))
        else:
            skipped[f"× {readable(ending)}" if ending else "without extension"] += 1
    for below in folders:
        yield from pictures_below(below, skipped, (*above, here), key)


def left_out(skipped: Counter[str]) -> str:
    """What was skipped, in words."""
    return "left out: " + ", ".join(f"{count:,} {what}" for what, count in sorted(skipped.items()))


def visible(folder: Path, skipped: Counter[str], key: str = ROOT) -> list[os.DirEntry[str]]:
    """What is in `folder`, in order of the names, without hidden files and folders, which are counted in `skipped`."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{key}: {folder} cannot be read ({one_line(error)})") from error
    shown = [entry for entry in found if not entry.name.startswith(".")]
    if hidden := len(found) - len(shown):
        skipped["hidden"] += hidden
    for entry in shown:
        if entry.is_symlink() and not Path(entry.path).exists():
            raise InputError(f"{key}: {entry.path} is a link to nothing; remove it")
    return shown


def divided(listing: Listing, classes: list[str], fraction: float, root: Path) -> dict[str, Listing]:
    """Hold out the share `fraction` of each class, at least one image, as `test`."""
    labels = torch.tensor(listing.labels)
    random, held_out = torch.Generator().manual_seed(0), torch.zeros(len(labels), dtype=torch.bool)
    for number, name in enumerate(classes):
        own = (labels == number).nonzero()[:, 0]
        if len(own) < 2:
            raise InputError(f"dataset.root: {root / name} holds one image; with no test folder a class needs two")
        count = min(max(1, round(fraction * len(own))), len(own) - 1)
        held_out[own[torch.randperm(len(own), generator=random)[:count]]] = True

    def part(chosen: torch.Tensor) -> Listing:
        indices = chosen.nonzero()[:, 0].tolist()
        return Listing([listing.files[index] for index in indices], labels[indices].tolist())

    return {"train": part(~held_out), "test": part(held_out)}
