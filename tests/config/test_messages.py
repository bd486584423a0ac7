"""What messages tell people to type can be typed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

import trustml_cli
from tests.configs import choices, composed
from trustml_cli.config.groups import config_folder
from trustml_cli.config.instantiate import build
from trustml_cli.config.messages import unknown_key
from trustml_cli.config.trust import Permissions
from trustml_cli.system.errors import InputError

CONF = config_folder()
GROUPS = [path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"]


def needing_values() -> Iterator[tuple[str, ...]]:
    """Words that choose a YAML with a value to be set (???), and one such YAML at each other place of its group."""
    found = [(file.parent.name, file.stem) for file in sorted(CONF.glob("*/*.yaml")) if ": ???" in file.read_text()]
    yield from ((f"{group}={name}",) for group, name in found)
    for task in choices("task"):
        text = (CONF / "task" / f"{task}.yaml").read_text()
        for group, name in {"dataset": "image_folder", "model": "custom"}.items():
            for package in re.findall(rf"^  - /{group}@(\w+):", text, re.MULTILINE):
                yield f"task={task}", f"{group}@{package}={name}"
            for key in re.findall(rf"\${{named:{group},([\w.]+)}}", text):
                yield f"task={task}", f"{key}={name}"


def complaint(*words: str) -> str:
    """What `build` says of a part of the config that these words compose; empty if every part is built."""
    try:
        for key, node in composed(*words).items():
            if isinstance(node, DictConfig):
                build(node, str(key), Permissions(words, [Path("/")]))
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("words", [*needing_values()], ids=" ".join)
def test_a_value_can_be_set_as_the_message_says(words: tuple[str, ...]) -> None:
    asked: list[str] = []
    while match := re.search(r"needs a value; set it with ([\w.]+=)VALUE$", complaint(*words, *asked)):
        assert f"{match[1]}os:system" not in asked, "the message is the same after its advice was taken"
        asked.append(f"{match[1]}os:system")
    assert asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["task=steal", "student.checkpoint=x"],
            "there is no student yet; add model@student=NAME (trustml show ",
        ),
        (
            ["task=train", "experiment.seed=1"],
            "there is no experiment yet; add experiment=NAME (trustml show ",
        ),
        (["task=train", "defence.steps=1"], "defence=none has no keys; choose another defence (trustml show defence "),
        (["task=train", "trainer.epoch=1"], "no such key; did you mean 'epochs'?"),
    ],
)
def test_a_key_of_a_group_without_a_choice_names_the_choice_to_make(words: list[str], message: str) -> None:
    assert unknown_key(words[1].partition("=")[0], CONF, words).startswith(f"{words[1]}: {message}")


@pytest.mark.parametrize("words", [("task=fooling", "task.target=true"), ("task=backdoor", "task.source=[false]")])
def test_quotes_can_be_written_as_the_message_says(words: tuple[str, ...]) -> None:
    (advice,) = re.findall(r"'(\S+=\S+)'", complaint(*words))
    assert complaint(words[0], advice) == ""


def test_the_source_names_keys_and_choices_that_exist() -> None:
    """KEY=VALUE in a message, of a choice or of a key of a group."""
    keys = {group: "\n".join(file.read_text() for file in (CONF / group).glob("*.yaml")) for group in GROUPS}
    seen = 0
    for file in Path(trustml_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            for group, key, value in re.findall(r"(?<![\w.])([a-z]+)((?:\.\w+)?)=(\w*)", text):
                if group in GROUPS and key:
                    assert re.search(rf"^ *{key[1:]}:", keys[group], re.MULTILINE), f"{file}: {group}{key}"
                    seen += 1
                elif group in GROUPS and value and value.islower():
                    assert (CONF / group / f"{value}.yaml").exists(), f"{file}: {group}={value}"
                    seen += 1
    assert seen > 50
