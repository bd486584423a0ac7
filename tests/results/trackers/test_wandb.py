"""What wandb keeps offline is what the files of the run say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.results.trackers.wandb import Mode, WandB
from trustml_cli.system.errors import InputError

pytest.importorskip("wandb")

BLOCK, HEADER = 32768, 7  # of LevelDB's log format, in which wandb writes


def records(file: Path) -> Iterator[Any]:
    """The records in wandb's file, after its own header, as long as one of a block."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = file.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if (rest := BLOCK - place % BLOCK) < HEADER:
            place += rest
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def test_a_run_is_kept_offline_as_its_files_have_it(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=train", "model=logistic", "trainer=smoke", "tracker=wandb"]
    answer = trustml(*words, env={"MY_TOKEN": "logistic-secret", "WANDB_MODE": "online"})
    assert (answer.returncode, answer.stderr) == (0, "")
    (file,) = (tmp_path / "outputs" / "wandb").glob("offline-run-*/run-*.wandb")
    (run,) = (record.run for record in records(file) if record.HasField("run"))
    assert (run.project, run.display_name) == ("trustml", newest(tmp_path).name)
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (config["model"], config["trainer.epochs"]) == ("logistic", 2)
    assert run.notes == " ".join(facts(newest(tmp_path))["command"])
    summary = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for record in records(file)
        for item in record.summary.update
    }
    row = metrics(newest(tmp_path)).iloc[0]
    assert summary["test_accuracy"] == row.test_accuracy
    assert summary["test_accuracy_ci_low"] == row.test_accuracy_ci_low
    epochs = [{item.nested_key[0]: item.value_json for item in record.history.item} for record in records(file)]
    assert [epoch["epoch"] for epoch in epochs if "history/train_loss" in epoch] == ["1", "2"]
    assert len(list(file.parent.glob("files/media/images/plots/*.png"))) == len(list(newest(tmp_path).glob("plots/*")))
    assert {path.name for path in file.parent.glob("files/*")} == {"media", "requirements.txt"}


def test_online_without_a_login_is_one_line_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where a login would be found
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker = WandB(project="trustml", entity=None, mode=Mode.online, folder=tmp_path)
    with pytest.raises(InputError, match=r"^tracker.mode: wandb cannot begin a run online \(.*wandb login"):
        tracker.start(tmp_path / "run", {}, {})
