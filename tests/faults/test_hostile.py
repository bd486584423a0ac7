"""Configurations from strangers: no code that they name is run unless the user allows it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.helpers import Cli
from trustml_cli.config.groups import config_folder
from trustml_cli.config.messages import quoted
from trustml_cli.config.trust import Permissions
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
    "experiment/chooses_tracker": f"{GLOBAL}defaults: [override /tracker: mlflow]\n",
    "experiment/sets_tracker": f"{GLOBAL}tracker: {{uri: 'http://theirs'}}\n",
    "experiment/puts_tracker": f"{GLOBAL}defaults: ['/tracker/mlflow@_global_.tracker']\n",
    "experiment/puts_ours": f"{GLOBAL}defaults: ['/trainer/smoke@_global_.hydra.job.env_set']\n",
    "experiment/chooses_launcher": f"{GLOBAL}defaults: [override /launcher: joblib]\n",
    "experiment/chooses_hydra": f"{GLOBAL}defaults: [override /hydra/launcher: joblib]\n",
    "experiment/chooses_by_name": f"{GLOBAL}defaults: ['/${{model}}/x']\n",
    "experiment/resumes": f"{GLOBAL}resume: true\n",
    "experiment/output": f"{GLOBAL}output_dir: theirs\n",
    "experiment/caches": f"{GLOBAL}cache_dir: theirs\n",
    "experiment/data": f"{GLOBAL}data_dir: theirs\n",
    "experiment/data_part": f"{GLOBAL}defaults: [override /dataset: mnist]\ndataset: {{data_dir: it_ran}}\n",
    "experiment/reads": f"{GLOBAL}dataset: {{test_fraction: '${{oc.env:SECRET}}'}}\n",
    "experiment/reads_twice": f"{GLOBAL}dataset: {{test_fraction: \"${{oc.decode:'\\\\${{oc.env:SECRET}}'}}\"}}\n",
    "experiment/reads_by_name": f"{GLOBAL}dataset: {{limit: env, test_fraction: '${{oc.${{.limit}}:SECRET}}'}}\n",
    "experiment/calls_ours": f"{GLOBAL}defaults: [override /model: custom]\n"
    "model: {factory: 'trustml_cli.models.checkpoint:ZipFile', arguments: {file: it_ran, mode: w}}\n",
    "experiment/through_ours": f"{GLOBAL}attack: {{_target_: trustml_cli.job.hydra.types.HydraContext}}\n",
    "experiment/borrows": f"{GLOBAL}defaults: [override /model: custom]\nmodel: {{factory: 'stranger:Path'}}\n",
    "experiment/refers": f"{GLOBAL}trick: {{_target_: stranger.Evil}}\nhydra: {{callbacks: {{x: '${{trick}}'}}}}\n",
    "experiment/refers_to_itself": f"{GLOBAL}hydra: {{callbacks: {{x: '${{a}}'}}}}\n"
    "a: {b: '${c}'}\nc: {d: '${a}'}\n",
    "experiment/logs_to": f"{GLOBAL}trick: 'ext://stranger.Evil'\n"
    "hydra: {job_logging: {handlers: {console: {stream: '${trick}'}}}}\n",
    "experiment/locates": f"{GLOBAL}hydra: {{callbacks: {{x: {{_target_: hydra.utils.get_object, path: it}}}}}}\n",
    "tracker/mine": "_target_: trustml_cli.results.trackers.tracker.Tracker\n",
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
    (["experiment=chooses_tracker"], ["tracker", "experiment/chooses_tracker.yaml", "command line"]),
    (["experiment=sets_tracker"], ["tracker", "experiment/sets_tracker.yaml", "command line"]),
    (["experiment=puts_tracker"], ["tracker", "experiment/puts_tracker.yaml", "command line"]),
    (["experiment=sets_tracker", "tracker=mlflow"], ["tracker", "experiment/sets_tracker.yaml"]),
    (["experiment=puts_ours"], ["hydra", "experiment/puts_ours.yaml"]),
    (["experiment=chooses_launcher"], ["launcher", "experiment/chooses_launcher.yaml", "allow=[hydra]"]),
    (["experiment=chooses_hydra"], ["hydra", "experiment/chooses_hydra.yaml", "allow=[hydra]"]),
    (["experiment=chooses_by_name"], ["defaults", "experiment/chooses_by_name.yaml"]),
    (["experiment=resumes"], ["resume", "experiment/resumes.yaml", "command line"]),
    (["experiment=output"], ["output_dir", "experiment/output.yaml", "command line"]),
    (["experiment=caches"], ["cache_dir", "experiment/caches.yaml", "command line"]),
    (["experiment=data"], ["data_dir", "experiment/data.yaml", "command line"]),
    (["experiment=data_part"], ["dataset.data_dir", "command line"]),
    (["experiment=reads"], ["dataset.test_fraction", "SECRET", "TRUSTML_"]),
    (["experiment=reads_twice"], ["dataset.test_fraction", "SECRET", "TRUSTML_"]),
    (["experiment=reads_by_name"], ["dataset.test_fraction", "SECRET", "TRUSTML_"]),
    (["experiment=calls_ours"], ["model.factory", "trustml_cli.models.checkpoint:ZipFile"]),
    (["experiment=through_ours"], ["attack._target_", "hydra.types.HydraContext"]),
    (["experiment=refers", "allow=[hydra]"], ["hydra.callbacks.x._target_", "allow=[stranger]"]),
    (["experiment=refers_to_itself", "allow=[hydra]"], ["hydra", "contains itself"]),
    (["experiment=logs_to", "allow=[hydra]"], ["hydra.job_logging.handlers.console.stream", "allow=[stranger]"]),
    (["experiment=locates", "allow=[hydra]"], ["hydra.callbacks.x._target_", "hydra.utils.get_object"]),
    (["hydra/job_logging=theirs"], ["hydra", "hydra/job_logging/theirs.yaml"]),
    (["task.transfer_to=theirs"], ["others.theirs.factory", "allow=[stranger]"]),
    (["attack._target_=stranger.Evil"], ["attack._target_", "allow=[stranger]"]),
    (["attack._target_=os.system"], ["attack._target_", "os.system", "allow=[os]"]),
    (["+hydra.callbacks.x._target_=stranger.Evil"], ["hydra.callbacks.x._target_", "allow=[stranger]"]),
    (["+hydra.callbacks.x._target_=trustml_cli.job.os.system"], ["hydra.callbacks.x._target_", "trustml_cli.job.os"]),
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
    answer = trustml("--config-dir", "theirs", "task=attack", "trainer=smoke", *words, env={"SECRET": "hunter2"})
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert not (tmp_path / "it_ran").exists()
    assert "stranger" not in sys.modules
    assert "hunter2" not in answer.stderr + answer.stdout
    assert not any("hunter2" in file.read_text() for file in tmp_path.rglob("*.json"))


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


@pytest.mark.parametrize("way", ["..", "/"])
def test_a_file_outside_of_the_folders_of_choices_is_no_part_of_a_config(
    way: str, trustml: Cli, tmp_path: Path, strangers: Path
) -> None:
    """It would be found by way of our own folder, and count as ours."""
    (tmp_path / "outside.yaml").write_text(f"{GLOBAL}allow: [stranger]\nattack: {{_target_: stranger.Evil}}\n")
    inside = config_folder() / "experiment"
    path = os.path.relpath(tmp_path / "outside", inside) if way == ".." else f"/{tmp_path / 'outside'}"
    (strangers / "experiment" / "leads_out.yaml").write_text(f"{GLOBAL}defaults: ['{path}@_global_']\n")
    for choice in ("leads_out", path) if way == ".." else ("leads_out",):
        answer = trustml("--config-dir", "theirs", "task=attack", "trainer=smoke", f"experiment='{choice}'")
        assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
        assert "is outside the folders of choices" in answer.stderr
    assert not (tmp_path / "it_ran").exists()


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "20,000 values"),
        ("a: &a {b: *a}\n", "*a is inside itself"),
        (f"a: {'[' * 100}{']' * 100}\n", "30 deep"),
        (f"a: {'x' * 2**20}\n", "1,048,576 at most"),
        ("a: *b\n", "*b"),
        ("a: [\n", "experiment/large.yaml"),
        ("\xff", "experiment/large.yaml"),
    ],
    ids=["aliases", "itself", "deep", "long", "of nothing", "malformed", "no text"],
)
def test_a_file_that_is_larger_than_it_looks_is_refused_by_name(
    text: str, expected: str, trustml: Cli, strangers: Path
) -> None:
    (strangers / "experiment" / "large.yaml").write_bytes(f"{GLOBAL}{text}".encode("latin-1"))
    answer = trustml("--config-dir", "theirs", "task=train", "experiment=large")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "experiment/large.yaml" in answer.stderr
    assert expected in answer.stderr


def test_an_anchor_and_its_alias_are_taken(trustml: Cli, strangers: Path) -> None:
    (strangers / "experiment" / "twice.yaml").write_text(f"{GLOBAL}seed: &a 7\ntrainer: {{epochs: *a}}\n")
    answer = trustml("--config-dir", "theirs", "task=train", "experiment=twice", "--cfg", "job")
    assert answer.returncode == 0, answer.stderr
    assert "epochs: 7" in answer.stdout


def test_a_file_in_the_place_of_hydras_own_is_refused(trustml: Cli, strangers: Path) -> None:
    (strangers / "hydra" / "config.yaml").write_text(f"{GLOBAL}x: 1\n")
    answer = trustml("--config-dir", "theirs", "task=train")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "theirs/hydra/config.yaml" in answer.stderr


def test_what_an_allowed_module_has_from_elsewhere_is_not_allowed_with_it(
    trustml: Cli, tmp_path: Path, strangers: Path
) -> None:
    words = ["--config-dir", "theirs", "task=train", "trainer=smoke", "experiment=borrows"]
    answer = trustml(*words, "allow=[stranger]")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "model.factory: pathlib." in answer.stderr
    assert "allow=[pathlib]" in answer.stderr
    answer = trustml(*words, "allow=[stranger]", "model.factory=stranger:Path")
    assert "returned PosixPath, not a torch.nn.Module" in answer.stderr


def test_a_tracker_and_an_environment_variable_that_are_typed_are_taken(trustml: Cli, strangers: Path) -> None:
    words = ["--config-dir", "theirs", "tracker=mine", "seed=${oc.env:THEIRS}"]
    answer = trustml(*words, "--cfg", "job", "--resolve", env={"THEIRS": "71"})
    assert answer.returncode == 0, answer.stderr
    assert "trackers.tracker.Tracker" in answer.stdout
    assert "seed: '71'" in answer.stdout


def test_a_folder_to_write_to_is_in_those_at_the_top_or_typed(tmp_path: Path) -> None:
    Permissions(["dataset.cache_dir=x"]).refuse_folder("dataset.cache_dir", tmp_path)
    for inside in (tmp_path, tmp_path / "a" / "b"):
        Permissions([], [tmp_path]).refuse_folder("dataset.cache_dir", str(inside))
    (tmp_path / "link").symlink_to("/")
    for outside in (tmp_path.parent, tmp_path / "..", tmp_path / "link" / "x", f"{tmp_path}x"):
        with pytest.raises(InputError, match=r"dataset.cache_dir: .* on the command line"):
            Permissions(["task.cache_dir=x"], [tmp_path]).refuse_folder("dataset.cache_dir", outside)


@pytest.mark.parametrize("path", [".", ""])
def test_nothing_in_the_current_directory_is_imported(path: str, trustml_process: Cli, tmp_path: Path) -> None:
    (tmp_path / "hydra_plugins" / "theirs").mkdir(parents=True)
    for file in ("hydra_plugins/theirs/__init__.py", "hydra_plugins/theirs/plugin.py", "yaml.py", "omegaconf.py"):
        (tmp_path / file).write_text("open('it_ran', 'w')")
    answer = trustml_process("--cfg", "job", "allow=[mine]", env={"PYTHONPATH": f"{path}{os.pathsep}{ROOT}"})
    assert answer.returncode == 0, answer.stderr
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.faults
def test_a_module_in_the_current_directory_is_found_once_it_is_allowed(trustml_process: Cli, tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text(MODULE)
    (tmp_path / "yours" / "attack").mkdir(parents=True)
    (tmp_path / "yours" / "attack" / "mine.yaml").write_text("_target_: stranger.Evil\n")
    words = ["--config-dir", "yours", "task=attack", "trainer=smoke", "attack=mine"]
    assert "allow=[stranger]" in trustml_process(*words).stderr
    assert not (tmp_path / "it_ran").exists()
    trustml_process(*words, "allow=[stranger]")
    assert (tmp_path / "it_ran").exists()


def test_a_job_of_a_sweep_is_refused_and_the_others_go_on(trustml: Cli, tmp_path: Path, strangers: Path) -> None:
    answer = trustml("-m", "--config-dir", "theirs", "task=train", "trainer=smoke", "model=logistic,theirs")
    assert answer.returncode == 2
    assert "1 of 2 jobs completed" in answer.stdout
    assert "allow=[stranger]" in answer.stderr
    assert not (tmp_path / "it_ran").exists()


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
