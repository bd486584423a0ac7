"""What a directory that is resumed may say, whoever wrote what lies there."""

import json
import re
import shlex
from pathlib import Path

import pytest

from trustml_cli.cli.commands import answer
from trustml_cli.sweeps.resume import resumed_words
from trustml_cli.system.errors import InputError

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


def test_the_directory_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b, (c=1)'s"
    folder.mkdir()
    resumable(folder, "seed=0,1")
    words = answer(["resume", str(folder), "launcher=joblib", "--config-dir", "mine"])
    assert words is not None
    assert words[1:] == ["launcher=joblib", "--config-dir", "mine"]
    assert resumed_words(words[:1], [])[:2] == ["seed=0,1", "resume=true"]


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
    def source(path: object) -> dict[str, object]:
        return {"provider": "command-line", "path": path}

    honest = [{"provider": "main", "path": "/ours"}, source("/theirs"), source("--experimental-rerun=x")]
    assert resumed_words([resumable(tmp_path, "seed=0", sources=honest)], [])[-3:] == [
        "--multirun", "--config-dir", "/theirs",
    ]  # fmt: skip
    for sources in ([source(5)], [5], [{}], [source(None)], "/theirs", 5):
        assert resumed_words([resumable(tmp_path, "seed=0", sources=sources)], [])[-1] == "--multirun"


@pytest.mark.parametrize("content", ["", "5", "[a]", "hydra: 5", "hydra: {overrides: [a]}", "hydra: ${x}"])
def test_a_file_that_is_no_sweeps_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text(content)
    with pytest.raises(InputError, match=r"multirun.yaml is not as trustml wrote it"):
        resumed_words([f"resume={tmp_path}"], [])
