"""What is replaced in Hydra gives what Hydra's own parts give."""

import io
from typing import Any

import pytest
import yaml
from hydra import compose
from omegaconf import OmegaConf

from trustml_cli.config import hydra_internals
from trustml_cli.config.groups import config_folder
from trustml_cli.config.hydra_internals import QuickReading, composing_from

READ = "\n".join(
    [
        "numbers: [1e-3, 1E5, .5, 1_000, 0o17, 0x1F, 017, 1:30, .inf, -.NaN, 8/255]",
        "words: [yes, Off, y, 'no', null, ~, '', 2001-01-01, ${numbers}, '${oc.env:X,y}']",
        "text: |\n  two\n  lines",
        "folded: >-\n  one\n  line",
        "base: &base {a: 1, b: {c: [x: 1, y]}}",
        "more: {<<: *base, a: 2}",
        "again: *base",
        "1: number\ntrue: truth\n? key\n: value",
        "path: !!python/object/apply:pathlib.Path [a, b]",
        'escaped: "\\u00e9\\n\\x41"',
        "é: ü",
    ]
)
FAULTS = ["a: 1\na: 2", "a: [1, 2", "a:\n\t- 1", "a: !!python/object:os.system x", "a: *b", "a: 1\n--- 2"]
OTHERS = ["- 1", "", "text", "1"]


def outcome(load: Any, text: str) -> str:
    """The config, or the error, that loading gives."""
    try:
        return repr(load(io.StringIO(text)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("text", [READ, *FAULTS, *OTHERS])
def test_the_quick_reader_gives_what_omegaconf_gives(text: str) -> None:
    assert outcome(QuickReading.load, text) == outcome(OmegaConf.load, text)


def test_all_yaml_of_ours_is_read_as_omegaconf_reads_it() -> None:
    texts = [file.read_text() for file in config_folder().rglob("*.yaml")]
    assert len(texts) > 200
    slow = hydra_internals.get_yaml_loader()
    for text in texts:
        assert repr(yaml.load(text, hydra_internals.fast_loader())) == repr(yaml.load(text, slow))


def test_a_text_is_parsed_once_and_its_configs_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with composing_from(config_folder()):
        first = compose("config", ["task=train"])
        monkeypatch.setattr(yaml, "load", None)  # whoever parses now, fails
        first.task = None
        assert compose("config", ["task=train"]).task._target_.endswith(".Train")
