"""Which images an attack is fitted to: the victim's training images, or images held out from them."""

from collections.abc import Iterable
from enum import Enum

from trustml_cli.data.dataset import Dataset
from trustml_cli.data.unseen import split_validation
from trustml_cli.models.model import Model
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context


class AttackerImages(Enum):
    """The images that an attack is fitted to."""

    train = "train"
    """Images that the victim was trained on."""
    held_out = "held_out"
    """Training images that were held out before the victim was trained."""


def split_for_attacker(data: Dataset, images: int, which: AttackerImages, seed: int) -> tuple[Dataset, Dataset]:
    """The data set of the victim and that of the attacker, whose attack is fitted to `images` training images.

    Raises `InputError` where holding out that many leaves the victim none.
    """
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
    """The column that names the attacker's images; empty for an attack that is not fitted to images."""
    return {"attacker_images": which.value} if images else {}


def remark_on_checkpoints(context: Context, models: Iterable[Model], which: AttackerImages) -> None:
    """Warn that a victim that is not trained may have learned the images that are held out for the attacker."""
    if which is AttackerImages.held_out and not all(model.trains for model in models):
        context.remark("model: is not trained here, and may have learned the attacker's images before")
