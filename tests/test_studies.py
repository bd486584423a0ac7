"""Every study asks for what its tasks measure, and the page of the courses lists what each of them asks."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import pandas
import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from tests.configs import choice, choices, composed
from tests.helpers import Cli
from trustml_cli.config.groups import config_folder
from trustml_cli.config.instantiate import build
from trustml_cli.config.messages import without_sweep
from trustml_cli.config.trust import Permissions
from trustml_cli.metrics.columns import Columns, declared
from trustml_cli.models.binary import Activation
from trustml_cli.results.study import Figure, Item, figures_of, read_study

ROOT = Path(__file__).parents[1]
COURSES = ("cs329t", "cis680", "tehran", "lecture")
EVERY_ROW = {"task", "dataset", "model", "seed"}


@cache
def items_of(study: str) -> Mapping[str, Item]:
    return read_study(OmegaConf.load(config_folder() / "study" / f"{study}.yaml"))[1]


def target_of(group: str, name: str) -> str | None:
    """The class of the task in one YAML, or in those it is made of; composing each would take a quarter of a second."""
    node: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / group / f"{name}.yaml"))
    if target := node.get("task", {}).get("_target_"):
        return str(target)
    for each in node["defaults"]:
        place, base = (group, each) if isinstance(each, str) else next(iter(each.items()))
        follows = place in (group, "override /task") and base != "_self_"
        if follows and (found := target_of(place.rpartition("/")[2], base)):
            return found
    return None


def columns_of(item: Item) -> Columns:
    """The columns of the task that an item runs; of a sweep over experiments, of the first."""
    chosen = next(word.partition(",")[0] for word in item.run if word.startswith(("task=", "experiment=")))
    columns: Columns = get_class(str(target_of(*chosen.split("=")))).columns  # type: ignore[attr-defined]
    return columns


def unknown(figure: Figure, item: Item, columns: Columns) -> list[str]:
    """The names in a figure that no row of its item can have."""
    swept = {word.partition("=")[0] for word in item.run if "," in word}
    conditions = [name for name in figure.where if name not in EVERY_ROW | swept]
    wrong = []
    for name, condition in ((figure.metric, False), *((name, True) for name in conditions)):
        try:
            declared(columns, [name], condition)
        except LookupError:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("study", choices("study"))
def test_every_figure_is_a_column_that_the_task_of_its_item_declares(study: str) -> None:
    for name, item in items_of(study).items():
        assert item.figures, f"{name} measures nothing"
        columns = columns_of(item)
        for key, figure in figures_of(name, item).items():
            assert not unknown(figure, item, columns), f"{name}.{key}"


def test_a_figure_that_no_task_writes_is_noticed() -> None:
    item = Item("?", ["task=fgsm", "seed=0,1", "attack=pgd"])
    columns = columns_of(item)
    figure = Figure("robust_accuracy", where={"epsilon": 0.1, "seed": 0})
    assert not unknown(figure, item, columns)
    assert unknown(Figure("test_accuracy", where={"attack.steps": 3}), item, columns) == [
        "test_accuracy",
        "attack.steps",
    ]


@pytest.mark.parametrize("study", COURSES)
def test_every_answer_says_more_than_its_figures(study: str) -> None:
    for name, item in items_of(study).items():
        used = set(re.findall(r"\{(\w+)\}", item.answer))
        assert used, name
        assert len(re.sub(r"\{\w+\}", "", item.answer).split()) >= 8 * len(used), f"{name}: numbers without a meaning"


def test_the_page_lists_every_item_of_every_course() -> None:
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    for study in COURSES:
        table = page.partition(f"### `study={study}`")[2].partition("\n#")[0]
        rows = re.findall(r"^\| .+ \| `([\w`, ]+)` \|$", table, re.MULTILINE)
        assert [name.strip("` ") for row in rows for name in row.split(",")] == list(items_of(study)), study


def test_part_3_of_cis680_asks_the_network_of_signs_of_part_2() -> None:
    relu = build(choice("model", "mnist_cnn", normalization="symmetric"), "model")
    assert build(composed("model=mnist_bnn").model, "model") == replace(relu, activation=Activation.sign)
    items = items_of("cis680")
    assert {"experiment=bnn_mnist", "trainer=signs"} <= set(items["signs"].run)
    for name in ("nothing_erased", "one_label", "two_values"):
        assert {"trainer=signs", "model.normalization=symmetric", "task.transfer_to=mnist_bnn"} <= set(items[name].run)


@pytest.mark.faults
@pytest.mark.parametrize("study", choices("study"))
def test_the_full_form_of_every_item_builds(study: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "cats_dogs" / split).mkdir(parents=True)
    for name, item in items_of(study).items():
        words = {word.partition("=")[0]: without_sweep(word)[0] for word in item.run}
        config = composed(*words.values(), f"data_dir={tmp_path}")
        taken = signature(build(config.task, "task").__call__).parameters
        for part in (part for part in taken if part != "context"):
            if part not in config:
                assert taken[part].default is None, f"{name}: {part}"
                continue
            build(config[part], part, Permissions(folders=[Path("/")]))


@pytest.mark.faults
@pytest.mark.parametrize("study", choices("study"))
def test_what_an_item_suggests_to_try_next_composes_with_its_run(study: str) -> None:
    for item in items_of(study).values():
        for suggestion in item.vary:
            words = {word.partition("=")[0]: word for word in [*item.run, *suggestion.split()]}
            assert composed(*(without_sweep(word)[0] for word in words.values()))


@pytest.mark.faults
@pytest.mark.parametrize("study", ["tour", *COURSES])
def test_the_quick_form_measures_every_figure_and_draws_every_picture(study: str, trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("study", study, "quick=true")
    assert answer.returncode == 0, answer.stderr
    (folder,) = (tmp_path / "outputs" / "multirun").iterdir()
    table = pandas.read_csv(folder / "study.csv")
    missing: Any = table[table.value.isna()]
    assert missing.empty, missing[["item", "figure", "why"]].to_string()
    drawn = {name: {path.stem for path in folder.glob(f"{name}*/plots/*.png")} for name in items_of(study)}
    for name, item in items_of(study).items():
        assert drawn[name] >= set(item.plots) - {"density_race"}, name  # that of UCI Adult
