"""Statistical power of the comparison of two attacks on the same images: the sign test and detectable gaps."""

from fractions import Fraction
from itertools import count
from math import comb, inf

POINT = 0.01  # accuracies that differ by at most this count as equal
CHANCE = 0.05  # significance level of the sign test
POWER = 0.95  # power with which a gap must be detected to count as detectable
GAP = 0.03  # gap that must be detectable for a robust accuracy to count as trustworthy


def clearly(more: int, less: int, images: int) -> bool:
    """Whether two attacks differ clearly: `more` of `images` fooled only by the one, `less` only by the other.

    The difference must exceed one percentage point and be significant in a one-sided sign test.
    """
    return more - less > POINT * images and sign_test(more, less) < CHANCE


def sign_test(more: int, less: int) -> float:
    """The one-sided p-value: the probability of at least `more` heads in `more` + `less` tosses of a fair coin."""
    tosses = more + less
    heads = sum(comb(tosses, number) for number in range(more, tosses + 1))
    return float(Fraction(heads, 2**tosses))


def needed(images: int) -> int:
    """The smallest number of `images` fooled only by the other attack that is a clear difference."""
    return next(fallen for fallen in count(1) if clearly(fallen, 0, images))


def smallest_gap(images: int) -> float:
    """The smallest share of images fooled only by the other attack that is detected in 95 % of samples.

    In a sample of `images` their number is binomial; the gap is detected if it is at least `needed(images)`. Infinite
    if the sample is too small for any gap.
    """
    from scipy.special import bdtri  # the inverse of the binomial distribution function in its success probability

    fallen = needed(images)
    return float(bdtri(fallen - 1, images, 1 - POWER)) if fallen <= images else inf


def images_for(gap: float) -> int:
    """The smallest number of images with which a gap of this size (above one percentage point) is detectable."""
    return next(images for images in count(1) if smallest_gap(images) <= gap)
