"""The frames of a slider: the same images at each value of a condition, from artifacts/slider.json of a run."""

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path

from trustml_cli.system.user_file import MB, read_text

FILE = "artifacts/slider.json"
LARGEST = 8 * MB  # maximum size in bytes of a slider.json


@dataclass(frozen=True)
class Frame:
    """Images side by side as a data: URL, with a caption for each and whether it is right."""

    value: str
    picture: str
    captions: list[tuple[str, bool]]


@dataclass(frozen=True)
class Slider:
    """The frames over the values of `condition`."""

    condition: str
    frames: list[Frame]


def slider_in(folder: Path) -> Slider | None:
    """The slider of a run; None if there is none or it cannot be read."""
    try:
        content = json.loads(read_text(folder / FILE, LARGEST, inside=folder))
        frames = [
            Frame(
                str(each["value"]),
                f"data:image/png;base64,{base64.b64encode(base64.b64decode(each['png'], validate=True)).decode()}",
                [(str(text), right is True) for text, right in each["captions"]],
            )
            for each in content["frames"]
        ]
        return Slider(str(content["condition"]), frames) if len(frames) > 1 else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        return None
