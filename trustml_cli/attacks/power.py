"""What a comparison of two attacks on so many images can see: the sign test, and the gaps that it finds."""

from fractions import Fraction
from itertools import count
from math import comb, inf

POINT = 0.01  # accuracies that differ by no more are called the same,
CHANCE = 0.05  # and so are those that differ by chance with this probability
POWER = 0.95  # with which a gap must be found for it to count as one that is found
GAP = 0.03  # that must be found before a robust accuracy may be believed


def clearly(more: int, less: int, images: int) -> bool:
    """Whether `more` images that fall one way and `less` the other, of so many `images`, are a clear difference.

    That is one of more than a point, and not by chance: a sign test over the images that fall to only one of both.
    """
    return more - less > POINT * images and sign_test(more, less) < CHANCE


def sign_test(more: int, less: int) -> float:
    """The chance of at least `more` heads in `more` + `less` tosses of a fair coin."""
    tosses = more + less
    heads = sum(comb(tosses, number) for number in range(more, tosses + 1))
    return float(Fraction(heads, 2**tosses))


def needed(images: int) -> int:
    """How many images must fall to the other attack alone before that is clear."""
    return next(fallen for fallen in count(1) if clearly(fallen, 0, images))


def smallest_gap(images: int) -> float:
    """The smallest share of all images, falling to the other attack alone, that is found in 95 of 100 samples.

    Of a sample of `images` the number that falls is binomial; it is found where it is at least what is `needed`.
    Infinite where no number of images is enough.
    """
    from scipy.special import bdtri  # the share at which so few fall with this probability

    fallen = needed(images)
    return float(bdtri(fallen - 1, images, 1 - POWER)) if fallen <= images else inf


def images_for(gap: float) -> int:
    """How many images it takes to find a gap of this size, above a point."""
    return next(images for images in count(1) if smallest_gap(images) <= gap)
