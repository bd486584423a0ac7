"""task=bnn through the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas
import pytest
import torch
from torch import nn

from trustml_cli.models.binary import Sign
from trustml_cli.tasks.bnn import at_activations

Cli = Callable[..., CompletedProcess[str]]


def run(trustml: Cli, folder: Path, *words: str) -> tuple[Path, pandas.DataFrame]:
    answer = trustml("task=bnn", *words)
    assert answer.returncode == 0, answer.stderr
    run = max(folder.glob("outputs/bnn/*"), key=lambda run: (run / "run.json").stat().st_mtime_ns)
    return run, pandas.read_csv(run / "metrics.csv").set_index("activation")


def test_both_networks_learn_and_the_history_tells_them_apart(trustml: Cli, tmp_path: Path) -> None:
    folder, table = run(trustml, tmp_path, "trainer.epochs=4")
    assert list(table.index) == ["relu", "sign"]
    assert table.test_accuracy_ci_low.min() > 0.5
    assert table.test_accuracy_n.eq(450).all()
    assert not table.binary_weights.any()
    history = pandas.read_csv(folder / "history.csv")
    assert list(zip(history.stage, history.epoch, strict=True)) == [(s, e) for s in table.index for e in (1, 2, 3, 4)]
    last = history.groupby("stage").test_accuracy.last()
    assert last.to_dict() == pytest.approx(table.test_accuracy.to_dict(), abs=1e-9)
    (check,) = json.loads((folder / "run.json").read_text())["checks"]
    assert check["passed"]
    assert check["figure"].startswith("0 of ")
    assert {plot.stem for plot in (folder / "plots").iterdir()} == {"curves", "pre_activations"}


def test_the_sign_network_alone_with_binary_weights(trustml: Cli, tmp_path: Path) -> None:
    _, table = run(trustml, tmp_path, "trainer.epochs=4", "task.activation=sign", "task.binary_weights=true")
    assert table.binary_weights.to_dict() == {"sign": True}
    assert table.test_accuracy_ci_low["sign"] > 0.5


def test_what_goes_into_and_comes_out_of_each_activation() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    first.weight.data, second.weight.data = torch.eye(2), torch.tensor([[1.0, 1.0]])
    network = nn.Sequential(first, Sign(), second, nn.ReLU())
    (given, made), (given_last, made_last) = at_activations(network, torch.tensor([[0.5, -3.0], [-2.0, -1.0]]))
    assert (given.tolist(), made.tolist()) == ([[0.5, -3], [-2, -1]], [[1, -1], [-1, -1]])
    assert (given_last.tolist(), made_last.tolist()) == ([[0], [-2]], [[0], [0]])
    assert not any(layer._forward_hooks for layer in network)


@pytest.mark.data
def test_on_mnist_sign_is_close_to_relu(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = ["trainer.epochs=2", "trainer.lr=0.003", "dataset.limit=8000"]  # so few steps have to be long ones
    _, table = run(trustml, tmp_path, "experiment=bnn_mnist", *short, f"data_dir={data_dir}")
    assert table.test_accuracy["relu"] >= 0.96
    assert table.test_accuracy["sign"] >= 0.94
