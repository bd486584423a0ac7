"""Whose images an attacker learns from: the victim's own training images, or some that the victim never saw."""

from enum import Enum

from trustml_cli.data.dataset import Dataset
from trustml_cli.data.unseen import split_validation
from trustml_cli.system.errors import InputError


class AttackerImages(Enum):
    """What an attacker has to learn from."""

    train = "train"
    """Images that the victim was trained on."""
    held_out = "held_out"
    """Images of the same kind that were set aside before the victim was trained."""


def split_for_attacker(data: Dataset, images: int, which: AttackerImages, seed: int) -> tuple[Dataset, Dataset]:
    """The data set as the victim has it, and as an attacker who learns from so many of its training images."""
    if which is AttackerImages.train or not images:
        return data, data
    if images >= len(data.train):
        raise InputError(
            f"task.attacker_images: the attack learns from {images} of {len(data.train)} training images, which leaves "
            "none for the victim; lower attack.training_images, or take train"
        )
    less, own = split_validation(data, images / len(data.train), seed)
    return less, data.derive("the attacker's", train=own)


def attacker_condition(images: int, which: AttackerImages) -> dict[str, str]:
    """The column that says which images the attacker had; none for an attack that learns from none."""
    return {"attacker_images": which.value} if images else {}
