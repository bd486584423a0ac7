"""Studies from the command line: which jobs they have, what they leave, and how they end."""

import json
import re
import shlex
from pathlib import Path

import pandas
import pytest
import yaml

from tests.configs import choices
from tests.helpers import Cli, facts
from trustml_cli.cli.commands import answer
from trustml_cli.config.groups import config_folder
from trustml_cli.config.hydra_internals import composing_from
from trustml_cli.results.study import Measured, figures_of, read_study
from trustml_cli.sweeps.callback import figures_as_text
from trustml_cli.sweeps.study import jobs_of
from trustml_cli.system.distribution import DISTRIBUTION

MINE = """
title: Two questions
items:
  accuracy:
    question: How often is it right?
    run: [task=train, model=logistic, trainer=smoke, 'seed=0,1']
    figures:
      accuracy: {metric: test_accuracy, at_least: 0.2}
    answer: "It is right about {accuracy}."
  robust:
    question: And under attack?
    run: [task=fgsm, model=logistic, trainer=smoke, task.check_images=0]
    quick: [task.images=20]
    figures:
      attacked: {metric: robust_accuracy, label: "red \\e[31m <b>", where: {epsilon: 0.3}, at_most: 0.2}
    answer: "Left are {attacked}."
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    folder = tmp_path / "mine" / "study"
    folder.mkdir(parents=True)
    (folder / "two.yaml").write_text(MINE)
    return str(folder.parent)


def test_a_study_runs_its_items_and_answers_them_on_one_page(trustml: Cli, mine: str, tmp_path: Path) -> None:
    limit = "study.items.robust.figures.attacked"
    strict = [f"{limit}.at_most=null", f"{limit}.at_least=0.9", f"{limit}.required=true"]
    answer = trustml("study", "two", "quick=true", "task.epsilon=0.3", *strict, "--config-dir", mine)
    assert answer.returncode == 3, answer.stderr
    assert "3 of 3 jobs completed" in answer.stdout
    assert "red \\x1b[31m <b>" in answer.stdout
    (folder,) = (tmp_path / "outputs" / "multirun").iterdir()
    assert {path.name for path in folder.iterdir() if path.is_dir() and path.name != ".hydra"} == {
        "accuracy,seed=0", "accuracy,seed=1", "robust",
    }  # fmt: skip
    assert facts(folder / "robust")["command"] == [
        "trustml", "--config-dir", mine, "task=fgsm", "model=logistic", "trainer=smoke", "task.check_images=0",
        "task.images=20", "task.epsilon=0.3",
    ]  # fmt: skip
    table = pandas.read_csv(folder / "study.csv").set_index("item")
    assert table.verdict.tolist() == ["holds", "does not hold"]
    assert table.n.tolist()[1] == 20
    seeds = [pandas.read_csv(folder / f"accuracy,seed={seed}" / "metrics.csv").test_accuracy[0] for seed in (0, 1)]
    assert table.value["accuracy"] == pytest.approx(sum(seeds) / 2)
    assert json.loads((folder / "study.json").read_text())["title"] == "Two questions"
    page = (folder / "index.html").read_text()
    assert "How often is it right?" in page
    assert f"It is right about {100 * table.value['accuracy']:.1f}\u00a0% (95\u00a0% interval" in page
    assert "<td>at least 90 %</td>" in page
    assert "n\u00a0=\u00a020)" in page
    assert page.count("<img") >= 2
    assert "red \\x1b[31m &lt;b&gt;" in page


def test_an_item_that_the_model_has_no_answer_to_stops_no_other(trustml: Cli, mine: str, tmp_path: Path) -> None:
    answer = trustml("study=two", "dataset=census", "model=table_mlp", "quick=true", "seed=0", "--config-dir", mine)
    assert answer.returncode == 0
    assert "1 of 2 jobs completed" in answer.stdout
    (folder,) = (tmp_path / "outputs" / "multirun").iterdir()
    table = pandas.read_csv(folder / "study.csv").set_index("item")
    assert table.verdict["accuracy"] == "holds"
    assert table.verdict["robust"] == "not measured"
    assert "needs images" in table.why["robust"]
    assert re.search("not measured +dataset: needs images", answer.stdout)
    assert "trustml: failed: " not in answer.stderr
    page = (folder / "index.html").read_text()
    assert "Not measured: dataset: needs images" in page
    assert 'class="error"' not in page


def test_a_study_is_held_against_that_of_another_model(trustml: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "study"
    folder.mkdir(parents=True)
    words = ["task=train", "model=logistic", "trainer=smoke", "trainer.epochs=3"]
    figures = {"accuracy": {"metric": "test_accuracy", "required": True}}
    items = {"right": {"question": "Is it right?", "run": words, "figures": figures}}
    (folder / "one.yaml").write_text(json.dumps({"title": "One", "model_card": True, "items": items}))
    words = ["study", "one", "--config-dir", str(folder.parent)]
    assert "or another study to go --against" in trustml(*words).stderr
    assert trustml(*words, "study.items.right.figures.accuracy.required=false").returncode == 0
    (first,) = (tmp_path / "outputs" / "multirun").iterdir()
    answer = trustml(*words, "trainer.epochs=1", "trainer.lr=1e-9", "--against", str(first))
    assert answer.returncode == 3, answer.stderr
    assert "worse than" in answer.stdout
    second = max((tmp_path / "outputs" / "multirun").iterdir())
    (row,) = json.loads((second / "study.json").read_text())["figures"]
    assert (row["change"], row["broken"], row["p_value"] < 1e-6) == ("worse", True, True)
    assert row["against_value"] > row["value"] + 0.3
    assert "worse" in (second / "index.html").read_text()
    assert "<failure" in (second / "junit.xml").read_text()
    assert f"accuracy | {100 * row['value']:.1f} % |" in (second / "README.md").read_text()
    answer = trustml(*words, "seed=7", "--against", str(first))
    assert answer.returncode == 2
    assert "asked right with nothing more, here with seed=7; ask both alike" in answer.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["study=tow"], "study=tow: no such study; did you mean 'two'?"),
        (["study=two", "study.itms.robust.vary=[]"], "study.itms: no such key; did you mean 'items'?"),
        (["study=two", "trainer.lrr=1"], "trainer.lrr=1: no item of this study has this key"),
        (["study=two", "attack.steps=1"], "attack.steps=1: no item of this study has this key"),
        (["study=two", 'study.items.accuracy.run=["task=trian"]'], "task=trian: no such task"),
        (["study=two", 'study.items.accuracy.run=["output_dir=x"]'], "output_dir=x is not for a study to set"),
        (["study=two", 'study.items.accuracy.run=["model.factory=os:x"]'], "is not for a study to set"),
        (["study"], "NAME"),
    ],
)
def test_a_wrong_study_ends_with_2_and_one_line(
    words: list[str], line: str, trustml: Cli, mine: str, tmp_path: Path
) -> None:
    answer = trustml(*words, "--config-dir", mine) if len(words[0]) > 5 else trustml(*words)
    assert answer.returncode == 2, answer.stdout
    assert line in answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert not list(tmp_path.rglob("run.json"))


def test_the_workflow_in_the_docs_runs_an_audit_that_can_be_composed() -> None:
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    (workflow,) = [block for block in blocks if "jobs" in block]
    (job,) = workflow["jobs"].values()
    commands = [shlex.split(step["run"]) for step in job["steps"] if "run" in step]
    assert commands[0] == ["pip", "install", DISTRIBUTION]
    audit = answer(commands[1][1:])
    assert audit is not None
    assert "study.against='released'" in audit
    assert {step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step} >= {
        "actions/checkout", "actions/upload-artifact",
    }  # fmt: skip
    with composing_from(config_folder()):
        from hydra import compose
        from hydra.core.global_hydra import GlobalHydra

        own = [word for word in audit if word.startswith("study")]
        study, items = read_study(compose("config", own).study)
        assert study.against == "released"
        assert sum(figure.required for name, item in items.items() for figure in figures_of(name, item).values()) == 2
        typed = [word for word in audit if not word.startswith("hydra.")]
        few = {name: items[name] for name in ("accuracy", "robustness_linf")}  # composing all takes seconds
        jobs = jobs_of(few, study.quick, typed, GlobalHydra.instance().config_loader())
        assert all("model.checkpoint=mine.safetensors" in job for each in jobs.values() for job in each)


@pytest.mark.faults
@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", choices("study"))
def test_every_study_names_runs_that_can_be_composed(name: str, quick: bool) -> None:
    with composing_from(config_folder()):
        from hydra import compose
        from hydra.core.global_hydra import GlobalHydra

        study, items = read_study(compose("config", [f"study={name}"]).study)
        loader = GlobalHydra.instance().config_loader()
        of_item = jobs_of(items, quick, [f"study={name}", "seed=3"], loader)
        jobs = [job for each in of_item.values() for job in each]
        assert len(jobs) >= len(items)
        assert all("seed=3" in job for job in jobs)
        assert study.title


def test_the_figures_on_a_terminal_have_no_empty_column_and_reasons_come_last() -> None:
    share = {"metric": "accuracy", "ci_low": 0.4, "ci_high": 0.6, "n": 1000}
    known = Measured(item="one", figure="a", label="clean", value=0.5, **share)
    missing = Measured(item="other", figure="b", label="lowest", metric="p_rule", verdict="not measured", why="a table")
    assert figures_as_text([known, missing]).split("\n") == [
        "item   figure  value   95 % interval   n      verdict       why",
        "one    clean   50.0 %  40.0 to 60.0 %  1,000",
        "other  lowest  –                              not measured  a table",
    ]
