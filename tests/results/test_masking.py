"""What looks like a secret does not reach what is handed on."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Cli, facts, newest
from trustml_cli.results.masking import masked, masked_yaml


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tracker.uri=http://me:word@host/x", "tracker.uri=http://***@host/x"),
        ("https://word@host/?api_key=word&y=1", "https://***@host/?api_key=***&y=1"),
        ("https://host/?sig=word", "https://host/?sig=***"),
        ("++model.hf_token=word", "++model.hf_token=***"),
        ("token='two words' x=1", "token=*** x=1"),
        ("x={api_token: word}", "x={api_token: ***}"),
        ("a:\n  password: two words\n  b: 1", "a:\n  password: ***\n  b: 1"),
        ("it holds hunter2xyz itself", "it holds *** itself"),
        ("a:\n  max_token: 5\n  token: null\n", "a:\n  max_token: 5\n  token: null\n"),
        ("task.token: needs a value", "task.token: needs a value"),
        ("monkey=x tokens=all sqlite:///a/b@c.db git@host:a/b", "monkey=x tokens=all sqlite:///a/b@c.db git@host:a/b"),
    ],
)
def test_secrets_in_a_text_are_masked_and_nothing_else(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_TOKEN", "hunter2xyz")
    monkeypatch.setenv("OTHER_TOKEN", "it")  # too short to be looked for
    monkeypatch.setenv("HARMLESS", "holds")
    assert masked(text) == shown


def test_a_path_in_the_environment_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(tmp_path))  # what a shell sets
    monkeypatch.setenv("THEIR_CREDENTIALS", str(tmp_path / "none.json"))  # not there, so that it may be anything
    assert masked(f"output_dir={tmp_path}/outputs") == f"output_dir={tmp_path}/outputs"
    assert masked(f"{tmp_path}/none.json") == "***"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"api_key": "word", "key": "word"}, {"api_key": "***", "key": "word"}),
        ({"a": [{"Password": "word"}]}, {"a": [{"Password": "***"}]}),
        ({"a.token": {"default": None, "value": "word"}}, {"a.token": {"default": None, "value": "***"}}),
        ({"token": 5, "secret": True, "password": ""}, {"token": 5, "secret": True, "password": ""}),
        ({"secret": ["word"]}, {"secret": ["***"]}),
    ],
)
def test_texts_under_a_key_that_is_called_like_a_secret_are_masked(value: Any, shown: Any) -> None:
    assert masked(value) == shown


def test_a_yaml_text_without_a_secret_stays_as_it_is() -> None:
    text = "b: 1.0e-3   # of mine\na: {x: 'y'}\n"
    assert masked_yaml(text) == text
    assert masked_yaml("b: 1\na:\n  token: |\n    two\n    lines\n") == "b: 1\na:\n  token: '***'\n"


def test_the_value_of_a_secret_variable_is_in_no_file_of_a_run_that_is_handed_on(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=train", "trainer=smoke", "model=logistic", "data_dir=${oc.env:THEIR_TOKEN}"]
    answer = trustml(*words, env={"THEIR_TOKEN": "hunter2xyz"})
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    assert facts(run)["changed"]["data_dir"]["value"] == "***"
    assert facts(run)["status"] == "completed"
    for name in ("run.json", "config.yaml", "report.html", "metrics.csv"):
        assert "hunter2xyz" not in (run / name).read_text()


@pytest.mark.parametrize("word", ["a", "a.", "token", "token=", "{token:", "?token", "a_", "://", "\n"])
def test_a_long_text_takes_no_more_than_its_length(word: str) -> None:
    masked({"key": word * (10**5 // len(word))})  # with steps that grow as the square it takes minutes
