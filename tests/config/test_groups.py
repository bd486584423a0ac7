"""A key of a task that names choices of another group."""

from pathlib import Path

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from tests.configs import composed
from tests.helpers import Cli
from trustml_cli.config.groups import changed, config_folder, folder_name, refuse_nameless_choices, register_resolvers
from trustml_cli.config.hydra_internals import composing_from
from trustml_cli.config.messages import explain
from trustml_cli.system.errors import InputError


def chosen(value: object, *overrides: str) -> DictConfig:
    """What ${named:dataset,wanted} is where `wanted` has this value."""
    register_resolvers()
    config = compose("config", list(overrides))
    OmegaConf.set_struct(config, False)
    config.wanted = value
    config.others = "${named:dataset,wanted}"
    return config.others  # type: ignore[no-any-return]


VARIABLE = "TRUSTML_DATA_DIR"


def test_without_a_home_there_is_no_folder_and_the_command_says_what_to_set(
    trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TRUSTML_DATA_DIR", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    words = ["task=train", "trainer=smoke", "model=logistic"]
    for empty in ({}, {VARIABLE: ""}):
        answer = trustml(*words, env=empty)
        assert (answer.returncode, answer.stderr) == (
            2, f"trustml: error: data_dir: there is no home directory for it; give data_dir=DIR, or set {VARIABLE}\n"
        )  # fmt: skip
    assert trustml(*words, f"data_dir={tmp_path}").returncode == 0
    assert trustml(*words, env={"TRUSTML_DATA_DIR": str(tmp_path)}).returncode == 0


def test_names_become_the_yaml_of_their_choices_with_this_configs_values() -> None:
    with composing_from(config_folder()):
        assert chosen(None) == {}
        one = chosen("mnist", "data_dir=/elsewhere")
        assert list(one) == ["mnist"]
        assert one.mnist == {
            "_target_": "trustml_cli.data.mnist.Mnist",
            "data_dir": "/elsewhere",
            "limit": None,
        }
        assert list(chosen(["digits", "cifar10"])) == ["digits", "cifar10"]


def test_an_unknown_name_is_one_line_that_names_the_key() -> None:
    with composing_from(config_folder()):
        with pytest.raises(Exception, match="mnst") as caught:
            chosen("mnst")
        assert explain(caught.value, Path(), []) == "wanted=mnst: no such dataset; did you mean 'mnist'?"
        assert not isinstance(caught.value, InputError)  # OmegaConf wraps it; `explain` looks inside


@pytest.mark.parametrize(
    ("added", "chosen"),
    [
        ("+attack@attacks.fgsm=fgsm", {"attack@attacks.fgsm": "fgsm"}),
        ("attack@attacks.pgd=mifgsm", {"attack@attacks.pgd": "mifgsm"}),
        ("+defence=trades", {"task": "universal", "attack": "universal_gradient", "defence": "trades"}),
    ],
)
def test_a_choice_that_is_added_to_those_of_the_task_is_no_change(added: str, chosen: dict[str, str]) -> None:
    whole = {"task": "rectify", "dataset": "digits", "model": "cifar_cnn", "trainer": "default", **chosen}
    with composing_from(config_folder()):
        register_resolvers()
        words = [f"task={whole['task']}", added, "seed=3"]
        assert changed(compose("config", words), whole, words) == {"seed": {"default": 0, "value": 3}}


def test_nothing_is_changed_by_choices_alone_and_something_by_an_experiment() -> None:
    assert changed(DictConfig({}), {"task": "train", "experiment": None}, ["task=train"]) == {}
    with composing_from(config_folder()):
        words = ["experiment=backdoor_mnist"]
        chosen = {"task": "backdoor", "dataset": "mnist", "model": "mnist_cnn", "experiment": "backdoor_mnist"}
        assert changed(compose("config", words), chosen, words)


@pytest.mark.parametrize(
    ("words", "epsilon"),
    [
        (["task=fgsm"], [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3]),
        (["task=fgsm", "attack.norm=l2"], [0, 0.1, 0.25, 0.5, 1, 2, 3]),
        (["task=fgsm", "attack.norm=l0"], [0, 1, 2, 4, 8, 16, 32]),
        (["task=fgsm", "attack.norm=l2", "task.epsilon=[0,7]"], [0, 7]),
        (["task=robust_train", "defence.epsilon=0.3"], 0.3),
        (["task=robust_train", "defence.norm=l2"], 0.5),  # the attack follows the defence
        (["task=robust_train", "attack.norm=l1", "defence.epsilon=0.3"], 2),  # it was trained for another norm
    ],
)
def test_default_epsilons_follow_the_norm(words: list[str], epsilon: object) -> None:
    assert composed(*words).task.epsilon == epsilon


def test_a_norm_that_no_epsilon_is_known_for_is_one_line_that_names_the_key() -> None:
    with pytest.raises(Exception, match="l7") as caught:
        composed("task=fgsm", "attack.norm=l7").task.epsilon  # noqa: B018
    assert explain(caught.value, Path(), []) == "attack.norm: must be one of linf, l2, l1, l0 here, got l7"
    with pytest.raises(Exception, match="l0") as caught:
        composed("task=robust_train", "defence.norm=l0").defence.epsilon  # noqa: B018
    assert explain(caught.value, Path(), []) == "defence.norm: must be one of linf, l2, l1 here, got l0"


@pytest.mark.parametrize(
    ("word", "value"),
    [("model=-1011", "-1011"), ("attack=nan", "nan"), ("model=mlp,3", "3"), ("+trigger=true", "True"),
     ("model={a:1}", "{'a': 1}"), ("model=null", "None"), ("task=range(1,3)", "1"), ("~physical=-2.5", "-2.5")],
)  # fmt: skip
def test_what_is_no_name_is_no_choice(word: str, value: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_nameless_choices(["seed=1", word])
    assert str(caught.value).startswith(f"{word}: {value} is no name of a choice; ")


@pytest.mark.parametrize("word", ["model=mlp", "model='3'", "model=mlp,cifar_cnn", "~model", "seed=3", "device=null"])
def test_names_and_other_keys_are_left_to_hydra(word: str) -> None:
    refuse_nameless_choices([word])


def test_the_folder_of_a_job_without_overrides_has_a_name() -> None:
    assert folder_name("") == "defaults"
