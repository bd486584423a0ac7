"""Configurations from strangers: no code that they name is run unless the user allows it."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import Cli
from trustml_cli.config.messages import quoted
from trustml_cli.sweeps.callback import resumed_words
from trustml_cli.system.errors import InputError

MODULE = """
from dataclasses import dataclass
from pathlib import Path

Path("it_ran").touch()

@dataclass
class Evil:
    pass

def network():
    return None
"""
GLOBAL = "# @package _global_\n"
YAMLS = {
    "attack/theirs": "_target_: stranger.Evil\n",
    "experiment/allows": f"{GLOBAL}allow: [stranger]\nattack: {{_target_: stranger.Evil}}\n",
    "experiment/calls_back": f"{GLOBAL}hydra: {{callbacks: {{x: {{_target_: stranger.Evil}}}}}}\n",
    "experiment/logs": f"{GLOBAL}hydra: {{job_logging: {{handlers: {{x: {{(): stranger.Evil}}}}}}}}\n",
    "experiment/sets": f"{GLOBAL}hydra: {{job: {{env_set: {{PATH: /tmp/theirs}}}}}}\n",
    "experiment/decodes": f"{GLOBAL}attack: '${{oc.create:{{_target_: stranger.Evil}}}}'\n",
    "experiment/makes": f"{GLOBAL}defaults: [override /model: custom]\nmodel: {{factory: 'stranger:network'}}\n",
    "hydra/job_logging/theirs": "handlers: {x: {class: stranger.Evil}}\n",
    "model/theirs": "defaults: [custom, _self_]\nfactory: stranger:network\n",
}
REFUSED = [
    (["attack=theirs"], ["attack._target_", "stranger.Evil", "allow=[stranger]"]),
    (["attack=theirs", "allow=[strange]"], ["attack._target_", "allow=[stranger]"]),
    (["experiment=allows"], ["allow", "experiment/allows.yaml", "command line"]),
    (["experiment=allows", "allow=[stranger]"], ["allow", "experiment/allows.yaml", "command line"]),
    (["experiment=calls_back"], ["hydra", "experiment/calls_back.yaml", "allow=[hydra]"]),
    (["experiment=logs"], ["hydra", "experiment/logs.yaml", "allow=[hydra]"]),
    (["experiment=sets", "allow=[stranger]"], ["hydra", "experiment/sets.yaml", "allow=[hydra]"]),
    (["experiment=decodes"], ["attack._target_", "allow=[stranger]"]),
    (["experiment=makes"], ["model.factory", "stranger:network", "allow=[stranger]"]),
    (["hydra/job_logging=theirs"], ["hydra", "hydra/job_logging/theirs.yaml"]),
    (["task.transfer_to=theirs"], ["others.theirs.factory", "allow=[stranger]"]),
    (["attack._target_=stranger.Evil"], ["attack._target_", "allow=[stranger]"]),
    (["attack._target_=os.system"], ["attack._target_", "os.system", "allow=[os]"]),
    (["+hydra.callbacks.x._target_=stranger.Evil"], ["hydra.callbacks.x._target_", "allow=[stranger]"]),
    (["+hydra.callbacks.x._target_=trustml_cli.run.os.system"], ["hydra.callbacks.x._target_", "trustml_cli.run.os"]),
    (["+hydra.launcher.x._target_=stranger.Evil"], ["hydra.launcher.x._target_", "allow=[stranger]"]),
    (["+hydra.job_logging.handlers.x.class=stranger.Evil"], ["hydra.job_logging.handlers.x.class"]),
    (["+hydra.job_logging.handlers.x.class=logging.os.system"], ["hydra.job_logging.handlers.x.class"]),
    (["+hydra.hydra_logging.filters.x=ext://stranger.Evil"], ["hydra.hydra_logging.filters.x", "stranger.Evil"]),
    (["--config-path", "theirs"], ["--config-path", "--config-dir"]),
    (["--config-name", "theirs"], ["--config-name", "--config-dir"]),
    (["--experimental-rerun", "config.pickle"], ["--experimental-rerun"]),
]


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of choices that name code beside it."""
    (tmp_path / "stranger.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in YAMLS.items():
        (tmp_path / "theirs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "theirs" / f"{name}.yaml").write_text(text)
    yield tmp_path / "theirs"
    sys.modules.pop("stranger", None)


@pytest.mark.parametrize(("words", "expected"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_code_that_a_configuration_names_is_refused_before_it_is_imported(
    words: list[str], expected: list[str], trustml: Cli, tmp_path: Path, strangers: Path
) -> None:
    answer = trustml("--config-dir", "theirs", "task=attack", "trainer=smoke", *words)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert not (tmp_path / "it_ran").exists()
    assert "stranger" not in sys.modules


@pytest.mark.parametrize(
    "words",
    [
        ["attack=theirs", "allow=stranger.Evil"],
        ["+hydra.callbacks.x._target_=stranger.Evil", "allow=[stranger]", "task.epsilon=-1"],
        ["experiment=calls_back", "allow=[hydra,stranger]", "task.epsilon=-1"],
        ["model=custom", "model.factory=stranger:network"],
        ["experiment=makes", "allow=[stranger]"],
    ],
    ids=" ".join,
)
@pytest.mark.filterwarnings("ignore:Callback Evil")  # it has none of the methods
def test_what_the_user_names_on_the_command_line_is_run(
    words: list[str], trustml: Cli, tmp_path: Path, strangers: Path
) -> None:
    answer = trustml("--config-dir", "theirs", "task=attack", "trainer=smoke", *words)
    assert "allow=" not in answer.stderr
    assert (tmp_path / "it_ran").exists()


def test_a_job_of_a_sweep_is_refused_and_the_others_go_on(trustml: Cli, tmp_path: Path, strangers: Path) -> None:
    answer = trustml("-m", "--config-dir", "theirs", "task=train", "trainer=smoke", "model=logistic,theirs")
    assert answer.returncode == 2
    assert "1 of 2 jobs completed" in answer.stdout
    assert "allow=[stranger]" in answer.stderr
    assert not (tmp_path / "it_ran").exists()


THE_USERS = [
    "allow=[stranger]", "++allow=[stranger]", "model.factory=stranger:network", "launcher=slurm",
    "hydra.launcher.setup=[x]", "++hydra.launcher.setup=[x]", "tracker=mlflow", "tracker.uri=x", "output_dir=x",
    "cache_dir=x", "data_dir=x", "dataset.cache_dir=x", "+tracker@trainer.x=mlflow",
    "+model@_global_.hydra.callbacks.x=theirs",
    "dataset.root='${oc.env:SECRET}'",
]  # fmt: skip


def resumable(folder: Path, *task: object, hydra: object = (), sources: object = ()) -> str:
    """A directory with the command of a sweep; what resumes it."""
    saved = {"hydra": {"overrides": {"task": list(task), "hydra": hydra}, "runtime": {"config_sources": sources}}}
    (folder / "multirun.yaml").write_text(json.dumps(saved))
    return f"resume={folder}"


@pytest.mark.parametrize("word", THE_USERS)
def test_what_a_resumed_directory_would_decide_is_to_be_typed_again(word: str, tmp_path: Path) -> None:
    resume = resumable(tmp_path, "attack=theirs", word)
    with pytest.raises(InputError, match=f"add it to the command: {re.escape(shlex.quote(word))}$"):
        resumed_words([resume], [])
    here = f"hydra.sweep.dir='{tmp_path}'"
    assert resumed_words([resume, word], []) == ["attack=theirs", word, "resume=true", here, "--multirun"]


def test_what_a_resumed_directory_says_of_hydra_is_left_out(tmp_path: Path) -> None:
    hydra = [
        "+hydra.callbacks.x._target_=stranger.Evil",
        "hydra.mode=MULTIRUN",
        "hydra.sweep.dir=elsewhere",
        "hydra/job_logging=x",
    ]
    resume = resumable(tmp_path, "attack=theirs", "+hydra.job.env_set.PATH=x", "+resume=x", hydra=hydra)
    here = f"hydra.sweep.dir='{tmp_path}'"
    assert resumed_words([resume], []) == ["attack=theirs", "resume=true", here, "--multirun"]
    for word in ("model.factory=stranger:network", "seed=5", "model.factory=stranger:other"):
        with pytest.raises(InputError, match="leave out"):
            resumed_words([resume, word], [])


@pytest.mark.parametrize(
    "word", ["--experimental-rerun=x.pickle", "-cd", "x", "", "a=b=[", 5, None, {"a": 1}, ["seed=1"]], ids=str
)
def test_what_is_no_key_and_value_in_a_resumed_directory_is_refused(word: object, tmp_path: Path) -> None:
    for resume in (resumable(tmp_path, "seed=0", word), resumable(tmp_path, "seed=0", hydra=[word])):
        with pytest.raises(InputError, match=r"multirun.yaml is not as trustml wrote it"):
            resumed_words([resume], [])


def test_the_folder_of_choices_of_a_resumed_directory_is_no_flag_of_another_kind(tmp_path: Path) -> None:
    known = [{"provider": "command-line", "path": path} for path in ("/theirs", "--experimental-rerun=x", 5, None)]
    words = resumed_words([resumable(tmp_path, "seed=0", sources=[*known, 5, {"path": "/x"}])], [])
    assert words[-2:] == ["--config-dir", "/theirs"]
    assert "--experimental-rerun=x" not in words
    assert resumed_words([resumable(tmp_path, "seed=0", sources="/theirs")], [])[-1] == "--multirun"


@pytest.mark.parametrize("content", ["", "5", "[a]", "hydra: 5", "hydra: {overrides: [a]}", "hydra: ${x}"])
def test_a_file_that_is_no_sweeps_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text(content)
    with pytest.raises(InputError, match=r"multirun.yaml is not as trustml wrote it"):
        resumed_words([f"resume={tmp_path}"], [])


@pytest.mark.parametrize("launcher", ["joblib", "slurm"])
def test_launchers_that_come_with_trustml_need_no_leave(launcher: str, trustml: Cli) -> None:
    answer = trustml("--cfg", "job", f"launcher={launcher}")
    assert answer.returncode == 0, answer.stderr


@given(st.text(max_size=8))
def test_a_quoted_text_is_read_by_hydra_as_it_was(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key=[{quoted(text)},1]")
    assert parsed.value() == [text, 1]


def test_a_refusal_is_an_input_error() -> None:
    from trustml_cli.config.trust import refuse

    for name in ("trustml_cli.attacks.fgsm.FGSM", "mine.net:small", "mine"):
        refuse("attack._target_", name, ["trustml_cli", "mine"])
    for name in ("trustml_clip.It", "minerals.It", "trustml", "", "${mine}"):
        with pytest.raises(InputError, match="allow="):
            refuse("attack._target_", name, ["trustml_cli", "mine"])
