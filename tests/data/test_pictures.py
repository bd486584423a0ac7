"""Single pictures: what a camera wrote is shown the way a viewer shows it."""

import io

import numpy as np
from PIL import Image

from trustml_cli.data.pictures import decode_picture


def test_a_picture_that_was_taken_sideways_is_turned_upright():
    picture = Image.fromarray(np.array([[0, 100, 200]], dtype=np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate by a quarter clockwise to see it
    content = io.BytesIO()
    picture.save(content, "PNG", exif=exif)
    assert decode_picture(content.getvalue(), "sideways", None, 1)[0].tolist() == [[0], [100], [200]]
