"""Figures of two models side by side, from run directories with answers that are worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from safetensors.numpy import save_file

from trustml_cli.results.against import asked_of, check_against, compare
from trustml_cli.results.aggregate import Run, read_run
from trustml_cli.results.study import Item
from trustml_cli.system.errors import InputError

KNOWN = {"task": "fgsm", "dataset": "digits", "model": "mlp", "seed": 0}


def run_of(folder: Path, right: int, n: int = 100, better: str = "higher", kept: bool = True, data: str = "d") -> Run:
    """A run that was right about the first `right` of n images, and of all of them in its first row."""
    (folder / "artifacts").mkdir(parents=True)
    ended = {"status": "completed", "conditions": ["epsilon"], "headline": "rate", "better": {"rate": better}}
    facts = {**KNOWN, **ended, "started": "1", "command": ["trustml"], "data": {"fingerprint": f"{data}, 9 held out"}}
    (folder / "run.json").write_text(json.dumps(facts))
    share, half = right / n, 0.08
    rows = [
        {**KNOWN, "epsilon": epsilon, "rate": value, "rate_ci_low": value - half, "rate_ci_high": value + half}
        for epsilon, value in ((0.0, 1.0), (0.1, share))
    ]
    pandas.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    if kept:
        answers = {"0.rate": np.ones(n, dtype=bool), "1.rate": np.arange(n) < right}
        save_file(answers, folder / "artifacts" / "by_image.safetensors")
    return read_run(folder)


def item(**figure: Any) -> Item:
    return Item("Is it?", ["task=fgsm"], figures={"one": {"metric": "rate", "where": {"epsilon": 0.1}, **figure}})


@pytest.mark.parametrize(
    ("here", "there", "figure", "change", "p_value"),
    [
        (70, 64, {}, "better", 2 * 0.5**6),  # six images are right here alone, and none there alone
        (64, 70, {}, "worse", 2 * 0.5**6),
        (70, 65, {}, "no difference", 2 * 0.5**5),
        (70, 64, {"at_most": 0.5}, "worse", 2 * 0.5**6),  # a limit says which way is better
        (70, 64, {"better": "lower"}, "worse", 2 * 0.5**6),
        (70, 64, {"better": "neither"}, "higher", 2 * 0.5**6),
        (70, 50, {"kept": False}, "better", None),  # 0.62 to 0.78 against 0.42 to 0.58
        (70, 60, {"kept": False}, "no difference", None),
        (70, 64, {"data": "another"}, "no difference", None),  # other images
        (70, 60, {"n": 120}, "better", None),  # 0.62 to 0.78 against 0.42 to 0.58 of another number of images
    ],
)
def test_a_figure_is_better_worse_or_neither(
    here: int, there: int, figure: dict[str, Any], change: str, p_value: float | None, tmp_path: Path
) -> None:
    limits = {name: figure.pop(name) for name in list(figure) if name == "at_most"}
    shared = {name: figure.pop(name) for name in list(figure) if name in ("better", "kept")}
    runs, others = [run_of(tmp_path / "a", here, **shared)], [run_of(tmp_path / "b", there, **shared, **figure)]
    (found,) = compare("a", item(**limits, required=True), runs, others)
    assert (found.change, found.value) == (change, here / 100)
    assert found.against_value == others[0].metrics.rate[1]
    assert found.p_value == (None if p_value is None else pytest.approx(p_value))
    assert found.broken is (change == "worse")
    assert f"{change} " in found.against


@pytest.mark.parametrize(("mine", "its", "paired"), [("cat", "cat", True), ("cat", "dog", False), ("mlp", "cnn", True)])
def test_answers_are_paired_under_the_same_conditions_only(mine: str, its: str, paired: bool, tmp_path: Path) -> None:
    runs = []
    for name, right, target in (("a", 70, mine), ("b", 64, its)):
        run = run_of(tmp_path / name, right)
        model = target if target in ("mlp", "cnn") else "mlp"
        run.metrics["target"] = target
        runs.append(replace(run, facts=replace(run.facts, conditions=["epsilon", "target"], model=model)))
        runs[-1].__dict__["metrics"] = run.metrics
    (found,) = compare("a", item(), runs[:1], runs[1:])
    assert (found.p_value is not None, found.change) == (paired, "better" if paired else "no difference")


def test_a_figure_that_the_other_lacks_is_not_compared(tmp_path: Path) -> None:
    (found,) = compare("a", item(required=True, at_least=0.1), [run_of(tmp_path / "a", 70)], [])
    assert (found.value, found.change, found.against, found.broken) == (0.7, "", "", False)


@pytest.mark.parametrize(("limit", "broken"), [({}, True), ({"at_least": 0.1}, False)])
def test_a_required_figure_that_nothing_speaks_for_does_not_pass(
    limit: dict[str, Any], broken: bool, tmp_path: Path
) -> None:
    here, there = (run_of(tmp_path / name, right, kept=False) for name, right in (("a", 70), ("b", 20)))
    (lacking,) = compare("a", item(required=True, **limit), [here], [])
    assert (lacking.broken, lacking.against_value) == (broken, None)
    for run in (here, there):
        for end in ("low", "high"):
            run.metrics[f"rate_ci_{end}"] = np.nan
    (unclear,) = compare("a", item(required=True, **limit), [here], [there])
    assert (unclear.change, unclear.broken, unclear.against_value) == ("not compared", broken, 0.2)
    assert unclear.against == "not compared with 20.0 %: there are no intervals"


ASKED = {"a": [["hydra.sweep.subdir=a", "model=mlp", "task=fgsm", "model.hidden=[3]", "seed=1", "trainer.epochs=3"]]}


def test_what_is_asked_does_not_name_the_model() -> None:
    assert asked_of(ASKED) == {"a": [["seed=1", "task=fgsm"]]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["is no study's directory"]),
        ("[]", ["is no study's directory"]),
        ('{"asked": {"a": [["task=fgsm"]]}}', ["asked a with nothing more, here with seed=1"]),
        ('{"asked": {"a": [["task=fgsm", "seed=2"]]}}', ["with seed=2, here with seed=1"]),
        ('{"asked": {"b": [["task=fgsm"]]}}', ["is of another study", "none of a"]),
        ('{"asked": {"a": 3}}', ["is no study's directory"]),
    ],
)
def test_a_directory_that_cannot_be_compared_is_refused(content: str | None, words: list[str], tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError) as refused:
        check_against(tmp_path, asked_of(ASKED))
    assert all(word in str(refused.value) for word in ["--against: ", *words]), refused.value
    assert "\n" not in str(refused.value)
