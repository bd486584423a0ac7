"""task=forget: rows, checks, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers import Cli, facts, metrics, newest
from tests.tasks.test_backdoor import PATCH, bars, poisoning  # noqa: F401
from trustml_cli.backdoors.poison import Triggered
from trustml_cli.data.dataset import Dataset
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.clean_set import check_held_out, clean_sets
from trustml_cli.tasks.context import Context

SHORT = [
    "task=forget",
    "model=mlp",
    "trainer=smoke",
    "trainer.epochs=6",
    "task.clean_share=0.3",
    "task.poison_rate=0.2",
]


def test_a_fresh_student_forgets_unless_its_images_are_tainted(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(*SHORT, "task.cleaner=[retrain,distill]", "task.tainted=[0,0.1]")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = metrics(run)
    assert list(zip(table.cleaner, table.tainted, strict=True)) == [
        ("none", 0), ("never_poisoned", 0), ("retrain", 0), ("distill", 0), ("retrain", 0.1), ("distill", 0.1),
    ]  # fmt: skip
    row = table.set_index(["cleaner", "tainted"])
    assert row.attack_success_rate["none", 0] > 0.8
    assert row.attack_success_rate["never_poisoned", 0] < 0.1
    assert row.attack_success_rate["distill", 0] < 0.2
    assert row.attack_success_rate["distill", 0.1] > row.attack_success_rate["distill", 0] + 0.3
    assert row.recovered_accuracy["distill", 0] > row.recovered_accuracy["none", 0] + 0.5
    assert row.clean_accuracy["distill", 0] > 0.8
    assert (row.clean_images["distill", 0.1], row.tainted_images["distill", 0.1]) == (404, 40)
    assert row.held_out_accuracy_n["distill", 0] == 81
    passed = {check["name"]: check["passed"] for check in facts(run)["checks"]}
    assert passed["settings are chosen on held-out clean images alone"] is True
    assert passed["there is a backdoor to forget"] is True

    tainted = run / "artifacts" / "distill_0.1.safetensors"
    answer = trustml(*SHORT, "task.cleaner=retrain", "task.tainted=0", f"model.checkpoint='{tainted}'")
    assert answer.returncode == 0, answer.stderr
    found = metrics(newest(tmp_path)).set_index("cleaner").attack_success_rate
    assert list(found.index) == ["none", "retrain"]
    assert "poison_rate" not in metrics(newest(tmp_path))  # nobody knows a checkpoint's
    assert found["none"] == row.attack_success_rate["distill", 0.1]


def test_a_held_out_image_with_the_trigger_is_noticed(context: Context, bars: Dataset) -> None:  # noqa: F811
    poison = poisoning().poison(bars, PATCH, seed=0)
    (clean,) = clean_sets(bars, bars.train, poison, [0.0], 0.2, seed=0).values()
    check_held_out(context, clean, poison)
    marked = Triggered(clean.data.test, PATCH, torch.ones(60, dtype=torch.bool))
    check_held_out(context, replace(clean, data=replace(clean.data, test=marked)), poison)
    assert [check.passed for check in context.record.checks] == [True, False]


def test_tainted_images_are_to_train_on_and_the_same_are_held_out(bars: Dataset) -> None:  # noqa: F811
    poison = poisoning().poison(bars, PATCH, seed=0)
    sets = clean_sets(bars, bars.train, poison, [0.1, 0.0], 0.2, seed=0)
    assert list(sets) == [0.0, 0.1]
    changed = sets[0.0].data.train.labels != sets[0.1].data.train.labels
    assert int(changed.sum()) == sets[0.1].tainted == 30
    assert torch.equal(sets[0.0].data.test.labels, sets[0.1].data.test.labels)
    assert sets[0.0].data.fingerprint != sets[0.1].data.fingerprint


@pytest.mark.parametrize("share", [0.001, 0.5])
def test_a_share_that_cannot_be_tainted_is_refused(share: float, bars: Dataset) -> None:  # noqa: F811
    poison = poisoning().poison(bars, PATCH, seed=0)
    with pytest.raises(InputError, match=r"^task\.tainted: .* of the 300 clean images is "):
        clean_sets(bars, bars.train, poison, [share], 0.2, seed=0)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("task.tainted=[]", "task.tainted: must be at least 0 and below 1"),
        ("task.clean_share=0", "task.clean_share: must be above 0"),
        ("trainer=sklearn model=logistic", "trainer: networks are cleaned by training with gradients"),
        ("task.cleaner=nad", "cleaner.nad: needs a network with convolutions"),
        ("task.cleaner=wash", "task.cleaner: "),
    ],
)
def test_what_cannot_be_cleaned_is_refused(word: str, message: str, trustml: Cli) -> None:
    answer = trustml(*SHORT[:3], *word.split())
    assert answer.returncode == 2
    assert message in answer.stderr
