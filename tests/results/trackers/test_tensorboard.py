"""TensorBoard's own reader finds in the event file what the files of the run say."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from tests.helpers import Cli
from tests.results.trackers.run import live, recorder
from trustml_cli.results.trackers.tensorboard import TensorBoard
from trustml_cli.results.trackers.tracker import metric_values


def accumulated(folder: Path) -> Any:
    """What TensorBoard reads in a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events


def scalars(events: Any) -> dict[str, list[tuple[int, float]]]:
    """The points of every curve."""
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def hyperparameters(events: Any) -> dict[str, Any]:
    """What the HPARAMS tab shows of a run."""
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    data = plugin.HParamsPluginData()
    data.ParseFromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    given = data.session_start_info.hparams
    return {name: getattr(given[name], str(given[name].WhichOneof("kind"))) for name in given}


def test_a_run_is_read_back_as_its_files_have_it(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=fgsm", "model=mlp", "trainer=smoke", "task.epsilon=[0,0.1]", "tracker=tensorboard")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    (run,) = (tmp_path / "outputs" / "fgsm").iterdir()
    events = accumulated(run)
    shown = scalars(events)

    history = pandas.read_csv(run / "history.csv").set_index("epoch").drop(columns="step")
    for name in history:
        assert [step for step, _ in shown[f"history/{name}"]] == history.index.tolist()
        assert [value for _, value in shown[f"history/{name}"]] == pytest.approx(history[name].tolist())
    table = pandas.read_csv(run / "metrics.csv")
    conditions = json.loads((run / "run.json").read_text())["conditions"]
    expected = {}
    for row in table.drop(columns=["task", "dataset", "model", "seed"]).to_dict("records"):
        condition = {name: row.pop(name) for name in conditions}
        expected |= metric_values(condition, row)
    assert len(expected) == 2 * (len(table.columns) - 4 - 3)
    final = {tag: points for tag, points in shown.items() if not tag.startswith("history/")}
    assert {tag: [step for step, _ in points] for tag, points in final.items()} == {tag: [0] for tag in expected}
    assert {tag: points[0][1] for tag, points in final.items()} == pytest.approx(expected, nan_ok=True)

    known = hyperparameters(events)
    assert known["trainer.epochs"] == 2
    assert (known["model"], known["attack"], known["trainer"], known["seed"]) == ("mlp", "fgsm", "smoke", 0)
    assert known["task.epsilon"] == "[0, 0.1]"
    assert not any(name.startswith("tracker") for name in known)

    assert {tag.removeprefix("plots/") for tag in events.Tags()["images"]} == {p.stem for p in run.glob("plots/*.png")}
    for plot in run.glob("plots/*.png"):
        (shown_image,) = events.Images(f"plots/{plot.stem}")
        pixels = [
            np.asarray(Image.open(file).convert("RGB")) for file in (plot, BytesIO(shown_image.encoded_image_string))
        ]
        assert np.array_equal(*pixels)


def test_a_run_that_is_done_again_leaves_no_curve_of_the_earlier_one(tmp_path: Path) -> None:
    record = recorder(tmp_path)
    record.follow(TensorBoard())
    record.metrics(old=1.0)
    record._at_work.close()  # as the end of its process does
    record.start(again=True)
    record.follow(TensorBoard())
    live(record)
    assert record.tracker is not None
    shown = scalars(accumulated(tmp_path))
    assert "old" not in shown
    assert shown["history/poisoned/train_loss"] == [(1, 1.0), (2, 0.5)]
    assert shown["iteration/poisoned/train_loss"] == [(2, 0.5), (6, pytest.approx(1 / 6))]
