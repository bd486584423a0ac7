"""task=predict: files of all kinds get the answer of their upright, decoded image, and strange ones are noticed."""

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.data.dataset import Dataset
from trustml_cli.tasks import predict

SMALL = ["task=predict", "model=mlp", "trainer=smoke"]
ORIENTATION, TURNED = 0x0112, 6  # EXIF: to be turned by 90° clockwise


def leave_photos(folder: Path, data: Dataset) -> list[str]:
    """Ten test images in as many forms, a negative, a damaged file and a text; returns the classes of the ten."""
    (folder / "below").mkdir(parents=True)
    images = [image for image, _ in zip(data.test.stream(torch.arange(10), 1), range(10), strict=True)]
    for number, (pixels, _) in enumerate(images):
        grey = Image.fromarray(pixels[0, 0].numpy())
        if number == 0:  # larger
            grey.resize((64, 64), Image.Resampling.NEAREST).save(folder / "0.png")
        elif number == 1:  # 16 bits
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "1.png")
        elif number == 2:  # white, and transparent where the digit is dark
            white = Image.new("L", grey.size, 255)
            Image.merge("RGBA", [white, white, white, grey]).save(folder / "2.png")
        elif number == 3:  # turned by its EXIF tag
            exif = Image.Exif()
            exif[ORIENTATION] = TURNED
            grey.resize((64, 64), Image.Resampling.NEAREST).rotate(90).save(folder / "3.jpg", exif=exif, quality=95)
        else:
            grey.save(folder / "below" / f"{number}.png")
    Image.fromarray(255 - images[9][0][0, 0].numpy()).save(folder / "negative.png")
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "notes.txt").write_text("not a photo")
    return [data.classes[int(label)] for _, label in images]


def test_every_file_has_a_row_and_broken_ones_do_not_stop_the_rest(
    trustml: Cli, tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = leave_photos(tmp_path / "photos", digits)
    monkeypatch.setattr(predict, "AT_ONCE", 5)
    answer = trustml(*SMALL, "task.folder=photos", "task.background=0")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = pandas.read_csv(run / "predictions.csv", index_col="file", dtype={"class": str})
    assert len(table) == 12
    names = [f"{number}.jpg" if number == 3 else f"{'below/' * (number > 3)}{number}.png" for number in range(10)]
    right = [table.loc[name, "class"] == label for name, label in zip(names, labels, strict=True)]
    assert sum(right) >= 9  # the network's own accuracy is about 95 %
    assert all(right[:4])  # the forms that are not simply read
    assert table.loc["negative.png", "unlike"] == True  # noqa: E712
    assert table.loc[names, "unlike"].astype(bool).sum() <= 2
    broken = table.loc["damaged.png"]
    assert pandas.isna(broken["class"])
    assert "cannot be read as an image" in broken.problem

    row = metrics(run).iloc[0]
    assert (row.files, row.unreadable, row.unlike_rate_n) == (12, 1, 11)
    scores = table.outlier_score.dropna()
    assert list(table.loc[scores.index, "unlike"].astype(bool)) == list(scores > row.threshold)
    assert 0.85 < row.inlier_rate <= 1
    assert row.mean_confidence == pytest.approx(table.confidence.mean())
    sheets = sorted(path.name for path in (run / "artifacts").glob("files_*.png"))
    assert sheets == ["files_00001.png", "files_00002.png", "files_00003.png"]
    assert {path.stem for path in (run / "plots").iterdir()} == {"files", "most_unlike", "least_sure"}
    remarks = "; ".join(facts(run)["remarks"])
    assert "1 × .txt" in remarks
    assert "1 of 12 image files cannot be read" in remarks


def test_without_a_folder_negatives_and_random_pixels_are_noticed(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(*SMALL)
    assert answer.returncode == 0, answer.stderr
    table = pandas.read_csv(newest(tmp_path) / "predictions.csv", index_col="file")
    known = table.index.str.startswith("test_")
    assert (known.sum(), (~known).sum()) == (6, 6)
    assert table.unlike[known].mean() < 0.2
    assert table.unlike[~known].mean() > 0.6


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["task.folder=nowhere"], ["task.folder", "there is no folder nowhere"]),
        (["task.folder=empty"], ["task.folder", "holds no images", "1 × .txt"]),
        (["task.folder=broken"], ["task.folder", "none of the 1 image files in broken can be read"]),
        (["detector=[knn,msp]"], ["detector", "one at a time, got knn, msp"]),
        (["task.background=2"], ["background", "in [0, 1]"]),
        (["dataset=census"], ["dataset", "image"]),
    ],
    ids=lambda value: value[0],
)
def test_what_cannot_be_answered_is_said_before_training(
    words: list[str], parts: list[str], trustml: Cli, tmp_path: Path
) -> None:
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty" / "a.txt").touch()
    (tmp_path / "broken" / "a.png").touch()
    answer = trustml(*SMALL, *words)
    assert answer.returncode == 2
    assert "training" not in answer.stdout
    assert all(part in answer.stderr for part in parts), answer.stderr
    assert answer.stderr.count("\n") == 1
