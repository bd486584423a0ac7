"""The benchmarks of growth run as they stand, on very little."""

from pathlib import Path

import pytest

from benchmarks import photos
from benchmarks.growth import one


@pytest.mark.faults
@pytest.mark.parametrize("task", ["fgsm", "train"])
def test_time_and_memory_of_a_task_are_measured(task: str) -> None:
    found = one(task, images=200, width=8, classes=3)
    assert found["seconds"] > 0
    assert found["memory"] >= 0


def test_every_photo_of_the_folder_is_listed_and_some_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FILES": 40, "DISTINCT": 3, "CLASSES": 2, "SIZE": 8, "READ": (10, 20), "BATCH": 10}.items():
        monkeypatch.setattr(photos, name, value)
    photos.fill(tmp_path)
    found = photos.one(tmp_path)
    assert [one["files"] for one in found] == [40, 10, 20]
    assert found[1]["seconds"] < found[2]["seconds"]
