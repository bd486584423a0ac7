"""What so many images can show, against the binomial distribution of scipy and the figures of a simulation."""

import pytest
from scipy.stats import binom

from trustml_cli.attacks.power import clearly, images_for, needed, sign_test, smallest_gap


def test_sign_tests_worked_out_by_hand() -> None:
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(2, 1) == 0.5
    assert sign_test(0, 0) == 1


@pytest.mark.parametrize(("images", "fallen"), [(5, 5), (200, 5), (499, 5), (500, 6), (1000, 11), (10000, 101)])
def test_a_difference_is_clear_from_five_images_on_and_from_more_than_a_point(images: int, fallen: int) -> None:
    assert needed(images) == fallen
    assert clearly(fallen, 0, images)
    assert not clearly(fallen - 1, 0, images)
    assert not clearly(fallen, fallen - 1, images)


@pytest.mark.parametrize("images", [50, 200, 320, 1000])
def test_the_smallest_gap_is_found_in_95_of_100_samples(images: int) -> None:
    assert binom.sf(needed(images) - 1, images, smallest_gap(images)) == pytest.approx(0.95)


def test_a_gap_of_three_points_takes_three_hundred_images() -> None:
    assert smallest_gap(303) <= 0.03 < smallest_gap(302)
    assert images_for(0.03) == 303
    assert smallest_gap(4) == float("inf")  # five must fall
