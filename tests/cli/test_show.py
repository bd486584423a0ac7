"""`trustml show`: every choice and every key, as the YAML has them."""

import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from omegaconf import OmegaConf

from tests.configs import choices
from tests.helpers import Cli
from trustml_cli.cli.show import keys, show_choice, show_group, show_groups
from trustml_cli.config.groups import config_folder, flat, register_resolvers
from trustml_cli.config.hydra_internals import composing_from
from trustml_cli.system.errors import InputError

CONF = [config_folder()]
GROUPS = sorted(path.name for path in config_folder().iterdir() if path.is_dir() and path.name != "hydra")


def test_every_group_is_shown_with_its_choices() -> None:
    assert show_groups(CONF) == [
        [group, str(len(choices(group, variants=True))), ", ".join(choices(group, variants=True))] for group in GROUPS
    ]
    assert {"attack", "task", "trainer"} <= set(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_has_a_description(group: str) -> None:
    shown = dict(show_group(group, CONF))
    assert list(shown) == choices(group, variants=True)
    assert all(len(words) > 10 and "@package" not in words for words in shown.values()), shown


def plain(config: Any) -> Any:
    """A config as it is written, nothing resolved."""
    return OmegaConf.to_container(config, resolve=False)


def read(group: str, choice: str) -> tuple[dict[str, Any], list[str]]:
    """One file as OmegaConf reads it: its keys as on the command line and the groups that it chooses; its bases."""
    file = config_folder() / group / f"{choice}.yaml"
    node = plain(OmegaConf.load(file))
    package = next((words.split()[2] for words in file.read_text().splitlines() if "@package" in words), group)
    prefix = "" if package == "_global_" else f"{package}."
    defaults = node.pop("defaults", [])
    found = {f"{prefix}{key}": value for key, value in flat(node).items() if not key.endswith("_target_")}
    for item in defaults:
        if isinstance(item, dict):
            found |= {name.removeprefix("override ").removeprefix("/"): taken for name, taken in item.items()}
    return found, [item for item in defaults if isinstance(item, str) and item != "_self_"]


def shown(group: str, choice: str) -> dict[str, Any]:
    """What `trustml show` says of a choice, each value as OmegaConf reads it."""
    return {key: plain(OmegaConf.create(f"it: {value}"))["it"] for key, value, _ in show_choice(group, choice, CONF)}


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_every_file_is_shown_with_its_value_and_no_other(group: str) -> None:
    for choice in choices(group, variants=True):
        own, bases = read(group, choice)
        said = {key: value for key, value in shown(group, choice).items() if value != {}}  # `flat` knows no empty ones
        assert said | own == said, choice
        assert bases or said == own, choice


def test_what_a_choice_takes_from_another_is_shown_as_hydra_composes_it() -> None:
    building = [(group, choice) for group in GROUPS for choice in choices(group) if read(group, choice)[1]]
    assert {("trainer", "smoke"), ("task", "attack"), ("experiment", "cifar_crop")} <= set(building)
    register_resolvers()
    with composing_from(config_folder()):
        configs = {each: flat(plain(compose("config", ["=".join(each)]))) for each in building}
    for (group, choice), config in configs.items():
        own, said = read(group, choice)[0], shown(group, choice)
        assert said.keys() > own.keys(), choice
        assert {key: value for key, value in said.items() if key in config and config[key] != value} == {}, choice
        set_by_it = {key for key in config if key.startswith(f"{group}.") and not key.endswith("_target_")}
        assert set_by_it <= said.keys(), choice


def test_values_and_comments_are_those_of_the_file_and_of_what_it_builds_on(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("# the base\n_target_: a.B\nlr: 0.1  # how fast\nname: 'x # y'\nempty:\n")
    (tmp_path / "own.yaml").write_text(
        "# ours\ndefaults:\n  - base\n  - /attack: [fgsm, pgd]\n  - override /model: mlp\n  - _self_\n"
        "lr: 1e-3\nlist: [1,\n  2]  # both\ninner:\n  deep: ${seed}\n"
    )
    group = tmp_path.name
    assert keys(tmp_path / "own.yaml") == {
        f"{group}.lr": ("1e-3", "how fast"),
        f"{group}.name": ("'x # y'", ""),
        f"{group}.empty": ("", ""),
        "attack": ("[fgsm, pgd]", ""),
        "model": ("mlp", ""),
        f"{group}.list": ("[1, 2]", "both"),
        f"{group}.inner.deep": ("${seed}", ""),
    }


def test_choices_of_ones_own_are_shown_too_and_come_first(tmp_path: Path) -> None:
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "noise.yaml").write_text("# every pixel at random\nnorm: l0\n")
    (tmp_path / "attack" / "fgsm.yaml").write_text("# mine\n")
    shown = dict(show_group("attack", [tmp_path, *CONF]))
    assert (shown["noise"], shown["fgsm"]) == ("every pixel at random", "mine")
    assert show_choice("attack", "noise", [tmp_path, *CONF]) == [["attack.norm", "l0", ""]]


@pytest.mark.parametrize(
    ("group", "choice", "message"),
    [
        ("atack", None, "atack: no such group; did you mean 'attack'?"),
        ("debias", None, "debias: no such group; it is a choice of task; write task=debias"),
        ("task", "fgms", "task=fgms: no such task; did you mean 'fgsm'?"),
    ],
)
def test_a_name_that_is_not_there_is_one_line_with_the_nearest(group: str, choice: str | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        show_choice(group, choice, CONF) if choice else show_group(group, CONF)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("defaults: [other]\n", "theirs.yaml: builds on itself"),
        ("a: &a\n  b: *a\n", "theirs.yaml: has an alias"),
        ("- a\n- b\n", "theirs.yaml: holds no keys"),
        ("defaults: 5\n", "theirs.yaml: holds no keys"),
        ("a: [\n", "theirs.yaml: is no YAML"),
        ("a: \udcff\n", "theirs.yaml: is not UTF-8"),
        ("defaults: [nowhere]\n", "nowhere.yaml: No such file"),
    ],
)
def test_a_file_that_says_nothing_is_named(content: str, message: str, trustml: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "attack"
    folder.mkdir(parents=True)
    (folder / "theirs.yaml").write_bytes(content.encode(errors="surrogateescape"))
    (folder / "other.yaml").write_text("defaults: [theirs]\n")
    os.mkfifo(folder / "pipe.yaml")
    answer = trustml("show", "attack", "theirs", "--config-dir", "mine")
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1), answer.stderr
    assert message in answer.stderr
    answer = trustml("show", "attack", "--config-dir", "mine")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "theirs" in answer.stdout
    assert "pipe" not in answer.stdout
