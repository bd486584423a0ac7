import logging

import numpy as np
import pytest

from tests.processes import OneMakes, at_once
from trustml_cli.data.decoded import decoded

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def refuse():
    raise AssertionError("decoded again")


@pytest.fixture
def decode_into(tmp_path):
    """Decodes PIXELS (or what `decode` makes) into the test's own cache."""

    def run(decode=lambda: {"images": PIXELS, "labels": np.arange(3)}, origin="one"):
        return decoded(tmp_path, "made_up", origin, decode)

    return run


def test_arrays_are_decoded_once_and_come_from_the_cache_after_that(decode_into):
    first, fingerprint = decode_into()
    second, same = decode_into(refuse)
    for arrays in (first, second):
        assert sorted(arrays) == ["images", "labels"]
        np.testing.assert_array_equal(arrays["images"], PIXELS)
        np.testing.assert_array_equal(arrays["labels"], [0, 1, 2])
    assert fingerprint == same


def test_another_origin_is_decoded_on_its_own(decode_into):
    decode_into()
    with pytest.raises(AssertionError, match="decoded again"):
        decode_into(refuse, origin="two")


def test_the_fingerprint_is_that_of_the_content_not_of_the_origin(decode_into):
    _, one = decode_into(lambda: {"x": PIXELS}, origin="one")
    _, two = decode_into(lambda: {"x": PIXELS}, origin="two")
    _, three = decode_into(lambda: {"x": PIXELS + 1}, origin="three")
    _, four = decode_into(lambda: {"y": PIXELS}, origin="four")
    assert one == two
    assert len({one, three, four}) == 3


def test_writing_to_an_array_leaves_the_cache_as_it_is(decode_into):
    decode_into()[0]["images"][:] = 99
    np.testing.assert_array_equal(decode_into(refuse)[0]["images"], PIXELS)


def test_a_flipped_byte_in_the_cache_leads_to_decoding_again_with_a_warning(decode_into, tmp_path, flip_byte, caplog):
    _, fingerprint = decode_into()
    (file,) = tmp_path.glob("data/made_up-*/images.npy")
    flip_byte(file)
    with caplog.at_level(logging.WARNING):
        arrays, again = decode_into()
    assert "images.npy" in caplog.text
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(arrays["images"], PIXELS)
    assert again == fingerprint
    decode_into(refuse)


@pytest.mark.e2e
def test_processes_that_ask_at_once_decode_once(decode_into, tmp_path):
    others = OneMakes(tmp_path / "others", 2)

    def decode():
        others.makes()
        return {"images": PIXELS}

    def ask():
        others.asks()
        np.testing.assert_array_equal(decode_into(decode)[0]["images"], PIXELS)

    assert at_once(ask, ask) == [0, 0]
    assert others.made == 1
