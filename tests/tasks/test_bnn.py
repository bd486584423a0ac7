"""task=bnn through the command line."""

import copy
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pandas
import pytest
import torch
from torch import nn

from tests.helpers import FRESH, Cli, facts, metrics, newest
from tests.processes import at_once
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset
from trustml_cli.models.binary import Activation, Sign
from trustml_cli.models.blur import Pooling
from trustml_cli.models.mnist_cnn import MnistCnn
from trustml_cli.models.model import InputSpec, Normalization
from trustml_cli.models.packed import load_packed, pack
from trustml_cli.tasks.bnn import at_activations
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.packing import check_equal


def run(trustml: Cli, folder: Path, *words: str) -> tuple[Path, pandas.DataFrame]:
    answer = trustml("task=bnn", *words)
    assert answer.returncode == 0, answer.stderr
    return newest(folder), metrics(newest(folder)).set_index("activation")


def test_both_networks_learn_and_the_history_tells_them_apart(trustml: Cli, tmp_path: Path) -> None:
    folder, table = run(trustml, tmp_path, "trainer=smoke", "trainer.epochs=3")
    assert list(table.index) == ["relu", "sign"]
    assert table.test_accuracy_ci_low.min() > 0.5
    assert table.test_accuracy_n.eq(450).all()
    assert not table.binary_weights.any()
    history = pandas.read_csv(folder / "history.csv")
    assert list(zip(history.network, history.epoch, strict=True)) == [(s, e) for s in table.index for e in (1, 2, 3)]
    last = history.groupby("network").test_accuracy.last()
    assert last.to_dict() == pytest.approx(table.test_accuracy.to_dict(), abs=1e-9)
    (check,) = facts(folder)["checks"]
    assert check["passed"]
    assert check["figure"].startswith("0 of ")
    assert {plot.stem for plot in (folder / "plots").iterdir()} == {"curves", "pre_activations"}


PACKED = ["task.activation=sign", "task.binary_weights=true", "task.export=packed"]


def test_packed_says_the_same_in_less_memory_and_its_file_can_be_loaded(
    trustml: Cli, tmp_path: Path, digits: Dataset
) -> None:
    folder, table = run(trustml, tmp_path, "trainer=smoke", "trainer.epochs=3", *PACKED)
    assert table.binary_weights.to_dict() == {"sign": True}
    row = table.loc["sign"]
    assert row.test_accuracy_ci_low > 0.5
    assert (row.packed_agreement, row.packed_agreement_n) == (1, 450)
    assert row.packed_accuracy == row.test_accuracy > 0.5
    assert row.float32_bytes / row.packed_bytes > 25
    layers = pandas.read_csv(folder / "packed.csv").set_index("layer")
    assert list(layers.index) == ["1", "2", "3", "4", "5", "6", "7", "all"]
    assert layers["packed_bytes"]["all"] == row.packed_bytes == layers.packed_bytes[:-1].sum()
    assert (layers.speedup == layers.float32_ms / layers.packed_ms).all()
    checks = facts(folder)["checks"]
    assert [check["passed"] for check in checks] == [True] * 4
    assert [check["figure"] for check in checks[::2]] == [
        "0 of 1,773,000 differ",  # 450 images through 3,940 hidden units
        "450 of 450 test images agree",
    ]
    assert (folder / "plots" / "packed.png").exists()
    assert "128×1×1 → 100" in (folder / "report.html").read_text()

    images, labels = next(batches(digits.test, 450, torch.device("cpu")))
    answers = load_packed(folder / "artifacts" / "packed.safetensors")(images).argmax(1)
    assert int((answers == labels).sum()) == round(450 * row.packed_accuracy)


def test_a_packed_form_that_differs_is_found_out(tiny_data: Dataset) -> None:
    """One weight of the second layer, one threshold, one bias: each is seen by the check that is there for it."""
    torch.manual_seed(0)
    model = MnistCnn(
        pooling=Pooling.plain,
        activation=Activation.sign,
        binary_weights=True,
        normalization=Normalization.none,
        **FRESH,
    )
    network = model.build(InputSpec((1, 8, 8), 2, (0.5,), (0.5,))).requires_grad_(False)

    def found(change: Callable[[nn.Sequential], object]) -> list[bool]:
        packed = pack(network, (1, 8, 8))
        change(packed)
        checks: list[bool] = []
        record = SimpleNamespace(check=lambda name, passed, figure: checks.append(passed))
        with torch.no_grad():
            check_equal(cast(Context, SimpleNamespace(record=record)), copy.deepcopy(network), packed, tiny_data)
        return checks

    assert found(lambda packed: None) == [True, True, True]
    assert found(lambda packed: packed[1].threshold.add_(8))[0] is False
    assert found(lambda packed: packed[1].weight.bitwise_not_())[0] is False
    assert found(lambda packed: packed[-1].bias.add_(0.01)) == [True, False, True]
    assert found(lambda packed: packed[-1].bias.copy_(torch.tensor([99.0, -99.0])))[2] is False


def test_without_the_extra_packed_says_how_to_get_it(
    trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numba", "numba.extending"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("tasks.packing", "models.packed", "models.popcount"):
        monkeypatch.delitem(sys.modules, f"trustml_cli.{name}", raising=False)
    answer = trustml("task=bnn", *PACKED)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "task.export=packed: needs the extra packed" in answer.stderr
    assert "pip install 'trustml-cli[packed]'" in answer.stderr
    assert "training model" not in answer.stdout


def test_nothing_of_the_extra_is_imported_where_it_is_not_asked_for() -> None:
    def import_afresh() -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in ("trustml_cli", "numba"):
                del sys.modules[name]
        import_module("trustml_cli.tasks.bnn")
        assert "numba" not in sys.modules

    assert at_once(import_afresh) == [0]


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


@pytest.mark.data
def test_on_mnist_packed_agrees_on_every_image(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = ["trainer.epochs=1", "dataset.limit=8000", "dataset=mnist", f"data_dir={data_dir}"]
    _, table = run(trustml, tmp_path, *PACKED, *short)
    row = table.loc["sign"]
    assert (row.packed_agreement, row.packed_agreement_n) == (1, 8000)
    assert row.packed_accuracy == row.test_accuracy > 0.9
