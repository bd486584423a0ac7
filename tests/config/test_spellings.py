"""Fractions, and the names that other libraries have for our keys."""

from pathlib import Path

import pytest

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.config.groups import config_folder
from trustml_cli.config.instantiate import build_as
from trustml_cli.config.spellings import ALIASES, LENGTHS, decimals, notes, understood
from trustml_cli.system.errors import InputError


def without_keys(key: str, words: list[str]) -> bool:
    return False


@pytest.mark.parametrize(
    ("word", "same"),
    [
        ("task.epsilon=8/255", f"task.epsilon={8 / 255}"),
        ("task.epsilon=[0,4/255, 8/255]", f"task.epsilon=[0,{4 / 255}, {8 / 255}]"),
        ("task.epsilon=4/255,8/255", f"task.epsilon={4 / 255},{8 / 255}"),
        ("task.epsilon=[0,4/255],[8/255]", f"task.epsilon=[0,{4 / 255}],[{8 / 255}]"),
        ("++defence.epsilon=0.5/255", f"++defence.epsilon={0.5 / 255}"),
        ("references.margin.step_size='2/255'", f"references.margin.step_size='{2 / 255}'"),
        ("task.epsilon=-8/255", f"task.epsilon=-{8 / 255}"),
        ("task.epsilon=range(0,8/255,2/255)", f"task.epsilon=choice(0.0,{2 / 255},{4 / 255},{6 / 255})"),
        ("task.epsilon=range(3/2)", "task.epsilon=choice(0.0,1.0)"),
        ("task.epsilon=range(0,1/4,step=1/8)", "task.epsilon=range(0,0.25,step=0.125)"),
        ("task.epsilon=range(1,3)", "task.epsilon=range(1,3)"),
        ("task.epsilon=1/2/3", "task.epsilon=1/2/3"),
        ("dataset.root=1/2", "dataset.root=1/2"),  # a path
        ("task.target=1/2", "task.target=1/2"),  # a class
        ("eps=8/255", f"task.epsilon={8 / 255}"),
        ("+attack.eps=1", "+task.epsilon=1"),
        ("n_examples=5", "task.images=5"),
        ("norm=Linf", "attack.norm=linf"),
        ("attack.norm=Linf,L2", "attack.norm=linf,l2"),
        ("defence.norm=2", "defence.norm=l2"),
        ("model.norm=L2", "model.norm=L2"),
        ("attack@references.eps=fgsm", "attack@references.eps=fgsm"),
        ("~eps", "~eps"),
    ],
)
def test_a_command_line_is_understood_as(word: str, same: str) -> None:
    assert understood([word, "seed=1"], without_keys) == [same, "seed=1"]


def test_keys_of_lengths_are_those_that_the_yaml_calls_so() -> None:
    lines = [
        line.partition(":")[0].strip()
        for file in config_folder().glob("*/*.yaml")
        for line in file.read_text().splitlines()
        if "pixel units" in line and not line.startswith("#")
    ]
    assert {name for name in lines if not LENGTHS.fullmatch(name)} <= {"l0"}  # the last line of a long value
    assert decimals("trainer.lr", "1/10") == "1/10"  # read where its type is known


def test_an_alias_is_noted_and_stays_a_key_where_there_is_one() -> None:
    assert understood(["attack.alpha=1", "eps=2"], lambda key, words: words == []) == [
        "attack.alpha=1", "task.epsilon=2",
    ]  # fmt: skip
    assert notes() == "eps is read as task.epsilon"
    assert understood(["attack.alpha=1"], without_keys) == ["attack.step_size=1"]
    with pytest.raises(InputError, match=r"eps: is read as task.epsilon, which the command gives too; leave one out"):
        understood(["task.epsilon=1", "eps=2"], without_keys)
    with pytest.raises(InputError, match=r"task.epsilon: 8/0 divides by zero"):
        understood(["task.epsilon=8/0"], without_keys)


def test_no_alias_is_a_top_level_key_or_has_two_meanings() -> None:
    names = [name for names in ALIASES.values() for name in names]
    assert len(set(names)) == len(names)
    top = {line.partition(":")[0] for line in (config_folder() / "config.yaml").read_text().splitlines()}
    assert not {*top, *(path.name for path in config_folder().iterdir())} & set(names)


def test_a_fraction_in_a_file_is_read_where_a_number_is_wanted() -> None:
    from dataclasses import dataclass

    from omegaconf import OmegaConf

    @dataclass
    class Some:
        rate: float
        rates: list[float] | None
        name: str

    given = OmegaConf.create({"rate": "1/10", "rates": ["8/255", 1], "name": "1/2"})
    assert build_as(Some, given, "task") == Some(0.1, [8 / 255, 1], "1/2")
    given.rates = "1/4"
    assert build_as(Some, given, "task").rates == [0.25]
    given.rate = "1/0"
    with pytest.raises(InputError, match=r"^task.rate: 1/0 divides by zero"):
        build_as(Some, given, "task")


def test_fractions_and_aliases_give_the_run_of_the_plain_spelling(trustml: Cli, tmp_path: Path) -> None:
    mine = ["eps=8/255", "attack.norm=Linf", "n_examples=20"]
    assert trustml("task=fgsm", "trainer=smoke", "model=logistic", "task.check_images=0", *mine).returncode == 0
    run = newest(tmp_path)
    assert (
        "eps is read as task.epsilon; Linf is read as linf; n_examples is read as task.images"
        in (run / "trustml.log").read_text()
    )
    assert facts(run)["command"][-3:] == [f"task.epsilon={8 / 255}", "attack.norm=linf", "task.images=20"]
    assert (metrics(run).epsilon[0], metrics(run).clean_accuracy_n[0]) == (8 / 255, 20)
    assert trustml("runs", "task.epsilon=8/255").stdout.count("outputs/") == 1
