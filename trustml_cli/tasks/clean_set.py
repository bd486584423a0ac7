"""The few clean images with which a backdoored network is cleaned, and those by which settings are chosen."""

from dataclasses import dataclass, replace

from trustml_cli.backdoors.poison import Poison
from trustml_cli.data.dataset import Dataset, Split
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.context import Context


@dataclass(frozen=True)
class CleanSet:
    """The clean set as a data set: its training images are for cleaning, its test images choose settings.

    `tainted` of its `images` images are poisoned; all of these are training images. The test images of the run are no
    part of it, so that no cleaner can see them.
    """

    data: Dataset
    images: int
    tainted: int


def clean_sets(
    whole: Dataset, own: Split, poison: Poison, shares: list[float], held_out: float, seed: int
) -> dict[float, CleanSet]:
    """The clean set `own` with each share of its images tainted, and always the same ones held out.

    Raises `InputError` where a share is no image, or more than can be poisoned.
    """
    train, chosen_by = own.divide(held_out, seed)
    if not len(train):
        raise InputError("task.held_out: leaves no clean image to train on; lower it, or raise task.clean_share")
    candidates, sets = len(poison.candidates(train.labels)), {}
    for share in sorted(set(shares)):
        count = round(share * len(own))
        if share and not 0 < count <= candidates:
            raise InputError(
                f"task.tainted: {share:g} of the {len(own)} clean images is {count}, and 1 to {candidates} can be "
                f"poisoned; use at least {1 / len(own):.2g}, 0, or a larger task.clean_share"
            )
        data = whole.derive(f"clean set of {len(own)}, {held_out} held out, seed={seed}", train=train, test=chosen_by)
        data = replace(poison, rate=count / candidates).apply(data) if count else data
        sets[share] = CleanSet(data, len(own), count)
    return sets


def check_held_out(context: Context, clean: CleanSet, poison: Poison) -> None:
    """Check that the images by which settings are chosen do not carry the trigger."""
    held_out = clean.data.test
    indices = poison.of_source(held_out.labels)
    carrying = 0
    for raw, _ in held_out.stream(indices, 1000):
        carrying += int((poison.trigger(raw) == raw).flatten(1).all(1).sum())
    context.record.check(
        "settings are chosen on held-out clean images alone",
        carrying == 0,
        f"{len(held_out)} images, {carrying} with the trigger; no test image is among them",
    )
