"""Figures of a study from run directories, against limits worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pandas
import pytest
from omegaconf import OmegaConf

from trustml_cli.results.aggregate import Run, read_runs
from trustml_cli.results.study import Figure, Item, Measured, answer_of, figures_of, junit, measure, read_study
from trustml_cli.system.errors import InputError


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two seeds of one item, each with a row for epsilon 0 and one for 0.1."""
    for seed, (clean, robust) in enumerate([(0.9, 0.4), (0.8, 0.6)]):
        run = tmp_path / f"fgsm,seed={seed}"
        run.mkdir()
        known = {"task": "fgsm", "dataset": "digits", "model": "mlp", "seed": seed}
        ended = {"status": "completed", "conditions": ["epsilon"], "headline": "accuracy", "seconds": 2.0}
        (run / "run.json").write_text(json.dumps({**known, **ended, "started": f"{seed}", "command": ["trustml"]}))
        rows = [
            {**known, "epsilon": epsilon, "accuracy": value, "accuracy_ci_low": value - 0.05,
             "accuracy_ci_high": value + 0.05, "accuracy_n": 100}
            for epsilon, value in ((0.0, clean), (0.1, robust))
        ]  # fmt: skip
        pandas.DataFrame(rows).to_csv(run / "metrics.csv", index=False)
    return read_runs(tmp_path)


def item(**figure: Any) -> Item:
    return Item("Is it?", ["task=fgsm"], figures={"one": {"metric": "accuracy", **figure}}, answer="It is {one}.")


@pytest.mark.parametrize(
    ("limits", "verdict", "broken"),
    [
        ({}, "", False),
        ({"at_least": 0.4}, "holds", False),
        ({"at_least": 0.36, "required": True}, "holds", True),  # the interval reaches down to 0.35
        ({"at_least": 0.35, "required": True}, "holds", False),
        ({"at_least": 0.41}, "does not hold", False),
        ({"at_most": 0.39, "required": True}, "does not hold", True),
        ({"expected": 0.42, "tolerance": 0.02}, "holds", False),
        ({"expected": 0.42, "tolerance": 0.01}, "does not hold", False),
        ({"at_least": 0.3, "at_most": 0.5, "required": True}, "holds", False),
    ],
)
def test_a_value_is_held_against_its_limits(
    limits: dict[str, Any], verdict: str, broken: bool, runs: list[Run]
) -> None:
    (found,) = measure("fgsm", item(where={"epsilon": 0.1}, **limits), runs[:1])
    assert (found.value, found.n, found.verdict, found.broken) == (0.4, 100, verdict, broken)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.35, 0.45))
    assert found.seconds == 2


def test_several_seeds_are_averaged(runs: list[Run]) -> None:
    asked = item(where={"epsilon": "0"})
    (found,) = measure("fgsm", asked, runs)
    assert found.value == pytest.approx(0.85)
    assert found.ci_low is not None
    assert found.ci_low < 0.8
    assert found.seconds == 4
    assert answer_of(asked, [found]).startswith("It is 85.0 % (95 % interval ")


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        ({"metric": "acuracy"}, "no column acuracy; did you mean 'accuracy'?"),
        ({"where": {"epsilom": 1}}, "no column epsilom; did you mean 'epsilon'?"),
        ({"where": {"epsilon": 0.2}}, "no row with epsilon=0.2; there are 0.0, 0.1"),
        ({}, "2 rows, which differ in epsilon; add one to where"),
        ({"metric": "epsilon"}, "epsilon is a condition or a text; name a column of measured numbers"),
    ],
)
def test_what_has_no_value_says_why_and_breaks_what_is_required(
    figure: dict[str, Any], why: str, runs: list[Run]
) -> None:
    (found,) = measure("fgsm", item(**figure, at_least=0.1, required=True), runs[:1])
    assert (found.value, found.verdict, found.why, found.broken) == (None, "not measured", why, True)
    assert answer_of(item(), [found, found]) == f"Not measured: {why}."
    assert f"(not measured: {why})" in answer_of(item(), [found, replace(found, figure="other", value=1.0)])


def test_the_command_of_several_runs_is_the_sweep_that_repeats_them(runs: list[Run]) -> None:
    words = (("trustml", "task=fgsm", f"seed={seed}", "task.epsilon=[0,0.1]", "~x") for seed in (0, 1))
    ran = [replace(run, facts=replace(run.facts, command=each)) for run, each in zip(runs, words, strict=True)]
    (found,) = measure("fgsm", item(where={"epsilon": 0}), ran)
    assert found.command == "trustml -m task=fgsm seed=0,1 'task.epsilon=[0,0.1]' '~x'"


def test_an_item_without_a_run_is_not_measured() -> None:
    (found,) = measure("fgsm", item(), [])
    assert found.why == "no run of it was completed"


@pytest.mark.parametrize(
    ("metric", "at_least", "limit"),
    [
        ("test_accuracy", 0.9904, "at least 99.04 %"),
        ("test_accuracy", 0.9, "at least 90 %"),
        ("lowest_p_rule", 80, "at least 80 %"),
        ("anomaly_index", 2.5, "at least 2.5"),
    ],
)
def test_a_limit_is_shown_as_it_was_given(metric: str, at_least: float, limit: str) -> None:
    assert Figure(metric=metric, at_least=at_least).limit == limit


@pytest.mark.parametrize(
    ("quick", "required", "limit"),
    [
        (["dataset=digits"], False, ""),
        (["dataset=digits"], True, "at least 90 %"),  # somebody asks for it
        (["task.images=9"], False, "at least 90 %"),
    ],
)
def test_the_quick_form_on_another_data_set_has_no_limits(quick: list[str], required: bool, limit: str) -> None:
    figure = {"metric": "accuracy", "at_least": 0.9, "required": required}
    asked = {"title": "T", "items": {"a": {**ITEM, "quick": quick, "figures": {"one": figure}}}}
    for form, expected in ((True, limit), (False, "at least 90 %")):
        _, items = read_study(OmegaConf.create({**asked, "quick": form}))
        assert figures_of("a", items["a"])["one"].limit == expected


ITEM = {"question": "Is it?", "run": ["task=train"]}


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ({"items": {"a": ITEM}}, ["study.title", "needs a value"]),
        ({"title": "T", "items": {}}, ["study.items", "is empty"]),
        ({"title": "T", "items": {"a/b": ITEM}}, ["study.items.a/b", "names a directory"]),
        ({"title": "T", "items": {"a": {**ITEM, "anwser": ""}}}, ["study.items.a.anwser", "'answer'"]),
        ({"title": "T", "items": {"a": {**ITEM, "answer": "{b}"}}}, ["study.items.a.answer", "no figure 'b'"]),
        ({"title": "T", "items": {"a": 3}}, ["study.items.a", "mapping"]),
        (
            {"title": "T", "items": {"a": {**ITEM, "figures": {"b": {"metric": "accuracy", "required": True}}}}},
            ["study.items.a.figures.b.required", "at_least", "--against"],
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused_by_the_key(study: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        read_study(study)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        ({"expected": 0.8, "tolerance": 0.1, "at_most": 0.5}, "at_most: is not taken beside expected"),
        ({"tolerance": 0.1}, "tolerance: needs expected"),
        ({"expected": 0.8, "tolerance": -0.1}, "tolerance: must be at least 0"),
        ({"at_least": 90}, "at_least: accuracy is from 0 to 1, got 90"),
        ({"at_most": float("nan")}, "at_most: accuracy is from 0 to 1, got nan"),
        ({"at_least": 0.9, "at_most": 0.1}, "at_least: must be at most at_most, 0.1, got 0.9"),
        ({"metric": "p_rule_sex", "at_least": 0.8}, "at_least: p_rule_sex is in percent; write 80, not 0.8"),
    ],
)
def test_a_limit_that_would_be_ignored_or_says_nothing_is_refused(figure: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^study.items.a.figures.one.{words}"):
        read_study(OmegaConf.create({"title": "T", "items": {"a": {**ITEM, "figures": item(**figure).figures}}}))


def test_limits_are_told_in_words() -> None:
    assert Figure("accuracy", at_least=0.5, at_most=0.75).limit == "at least 50 % and at most 75 %"
    assert Figure("accuracy", expected=0.5, tolerance=0.1).limit == "50 % ± 10 %"
    assert Figure("accuracy").limit == ""
    assert Figure("auroc", at_least=0.9).limit == "at least 0.9"


def test_a_build_server_is_told_what_failed_and_what_was_not_measured() -> None:
    shared = {"item": "fgsm", "label": "robust \x1b[0m", "metric": "accuracy", "limit": "at least 0.5"}
    rows = [
        Measured(figure="one", value=0.4, verdict="does not hold", broken=True, **shared),
        Measured(figure="two", value=0.4, verdict="does not hold", **shared),
        Measured(figure="three", why="no images", **shared),
        Measured(figure="four", why="no images", broken=True, **shared),
        Measured(**{**shared, "figure": "five", "value": 0.4, "limit": ""}),
    ]
    suite = fromstring(junit("Audit", rows))
    assert {name: suite.get(name) for name in ("name", "tests", "failures", "skipped")} == {
        "name": "Audit", "tests": "4", "failures": "2", "skipped": "1",
    }  # fmt: skip
    assert [[child.tag for child in case] for case in suite] == [["failure"], ["system-out"], ["skipped"], ["failure"]]
    assert suite[0].get("classname") == "fgsm"
    assert "limit: at least 0.5" in str(suite[0][0].get("message"))
