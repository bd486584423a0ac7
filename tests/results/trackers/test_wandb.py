"""What wandb keeps offline is what the files of the run say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.configs import composed
from tests.results.trackers.run import live, recorder
from trustml_cli.config.instantiate import build
from trustml_cli.results.trackers.wandb import Mode, WandB
from trustml_cli.system.errors import InputError

wandb = pytest.importorskip("wandb")

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


def test_a_run_is_kept_offline_as_its_files_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")  # the configuration decides
    (tmp_path / "run").mkdir()
    record = recorder(tmp_path / "run")
    record.follow(build(composed("tracker=wandb", f"output_dir={tmp_path}").tracker, "tracker"))
    live(record)
    assert record.tracker is not None, "it did not fail"
    wandb.teardown()  # as at the end of a command: a process of wandb writes the file, and is waited for
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    found = list(records(file))
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.project, run.display_name, run.notes) == ("trustml", "run", "trustml seed=7")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {"model": "mlp", "trainer.lr": 1e-5, "task.epsilon": [0, 0.1], "seed": 7}.items() <= config.items()
    summary = {item.key: item.value_json for record in found for item in record.summary.update if item.key}
    values = {name: float(value) for name, value in summary.items() if name.startswith("robust_accuracy/")}
    assert values == {"robust_accuracy/fgsm/epsilon_0": 1.0, "robust_accuracy/fgsm/epsilon_0.1": 0.5}
    epochs = [{item.nested_key[0]: json.loads(item.value_json) for item in record.history.item} for record in found]
    for stage in ("clean", "poisoned"):
        losses = [(epoch["epoch"], epoch[name]) for epoch in epochs if (name := f"history/{stage}/train_loss") in epoch]
        assert losses == [(1, 1.0), (2, 0.5)]
        name = f"iteration/{stage}/train_loss"
        assert [(row["iteration"], row[name]) for row in epochs if name in row] == [(2, 0.5), (6, 1 / 6)]
    assert len(list(file.parent.glob("files/media/images/plots/curve_*.png"))) == 1
    assert {path.name for path in file.parent.glob("files/*")} == {"media", "requirements.txt"}


def test_online_without_a_login_is_one_line_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where a login would be found
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker = WandB(project="trustml", entity=None, mode=Mode.online, folder=tmp_path)
    with pytest.raises(InputError, match=r"^tracker.mode: wandb cannot begin a run online \(.*wandb login"):
        tracker.start(tmp_path / "run", {}, {})
