"""`trustml show`: every choice and every key, as the YAML has them."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.configs import choices, composed
from trustml_cli.choices import config_folder
from trustml_cli.errors import InputError
from trustml_cli.show import groups, keys, show_choice, show_group, show_groups

CONF = [config_folder()]
EVERY = [(group, choice) for group, files in groups(CONF).items() for choice in files]


def test_every_group_is_shown_with_its_choices() -> None:
    shown = {group: (int(count), names.split(", ")) for group, count, names in show_groups(CONF)}
    folders = {path.name for path in config_folder().iterdir() if path.is_dir()} - {"hydra"}
    assert set(shown) == folders
    for group, (count, names) in shown.items():
        assert names == choices(group)
        assert count == len(names)


@pytest.mark.parametrize("group", groups(CONF))
def test_every_choice_has_a_description(group: str) -> None:
    shown = dict(show_group(group, CONF))
    assert list(shown) == choices(group)
    assert all(len(words) > 10 and "@package" not in words for words in shown.values()), shown


@pytest.mark.parametrize(("group", "choice"), EVERY, ids=[f"{group}={choice}" for group, choice in EVERY])
def test_every_key_has_the_value_that_hydra_composes(group: str, choice: str) -> None:
    """What is shown, written as overrides, is what the choice alone already gives."""
    own = [key for key, _, _ in show_choice(group, choice, CONF) if key.startswith(f"{group}.")]
    loaded = OmegaConf.load(config_folder() / group / f"{choice}.yaml")
    if group in ("task", "trainer", "dataset", "model"):
        composed_node = composed(f"{group}={choice}")[group]
        assert {key.split(".")[1] for key in own} == set(composed_node) - {"_target_"}
    shown = {key: value for key, value, _ in show_choice(group, choice, CONF)}
    for key in own:
        inner = key.split(".", 1)[1]
        node = loaded.get(group, loaded)
        raw = OmegaConf.to_container(node, resolve=False)
        inner = inner.removeprefix(f"{choice}.")
        if isinstance(raw, dict) and inner in raw:
            assert OmegaConf.create({"it": raw[inner]}) == OmegaConf.create(f"it: {shown[key]}"), key


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
        f"{group}.list": ("[1,\n  2]", "both"),
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
