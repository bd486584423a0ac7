"""Every experiment composes and builds; those that take minutes at most reproduce their numbers on real data."""

import re
from inspect import signature
from pathlib import Path
from random import Random

import pytest
import torch
from hydra import compose
from hydra.errors import HydraException
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.configs import choices, composed
from tests.faults.whole import sized
from tests.helpers import NO_CACHE, Cli, measured
from trustml_cli.config.groups import config_folder, is_variant
from trustml_cli.config.hydra_internals import composing_from
from trustml_cli.config.instantiate import build
from trustml_cli.config.trust import Permissions
from trustml_cli.system.errors import InputError
from trustml_cli.training.inputs import input_spec

TYPED = Permissions(folders=[Path("/")])  # data may lie anywhere


CONF = config_folder()
EXPERIMENTS = choices("experiment")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for data sets; a reader of folders looks at once for those of its own."""
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        (folder / "cats_dogs" / split).mkdir(parents=True)
    return folder


def build_parts(*words: str) -> list[str]:
    """Build what the task of a command line takes; returns its names."""
    config = composed(*words)
    taken = signature(build(config.task, "task").__call__).parameters
    parts = [name for name, one in taken.items() if name in config or (one.default is one.empty and name != "context")]
    for part in parts:
        build(config[part], part, TYPED)
    return parts


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds(name: str, data_folder: Path) -> None:
    assert {"dataset", "model", "trainer"} <= set(build_parts(f"experiment={name}", f"data_dir={data_folder}"))


def test_an_experiment_sets_the_task_and_the_top_and_names_all_else() -> None:
    """So any of its choices can be replaced by another one, which has other keys."""
    top = {key for key, value in OmegaConf.load(CONF / "config.yaml").items() if not OmegaConf.is_config(value)}
    for name in EXPERIMENTS:
        assert set(OmegaConf.load(CONF / "experiment" / f"{name}.yaml")) <= {"defaults", "task", *top}, name


def test_every_variant_serves_an_experiment_or_a_task() -> None:
    text = "\n".join(file.read_text() for file in CONF.glob("*/*.yaml"))
    variants = [file for file in CONF.glob("*/*.yaml") if is_variant(file)]
    variants = [file for file in variants if file.parent.name != "dataset"]  # a user names several as outliers
    assert variants
    for file in variants:
        named = rf"(/{file.parent.name}(@[\w.]+)?: .*|^  - |\b{file.parent.name}=[\w,]*)\b{file.stem}\b"
        assert re.search(named, text, re.MULTILINE), file.name


def others(experiment: str) -> list[str]:
    """What replaces one choice of an experiment by another, for each group that its task takes."""
    with composing_from(CONF):
        chosen = compose("config", [f"experiment={experiment}"], return_hydra_config=True).hydra.runtime.choices
    places = {place: CONF / place.partition("@")[0] for place in chosen if not place.startswith(("task", "hydra/"))}
    files = [(place, file) for place, folder in places.items() for file in sorted(folder.glob("*.yaml"))]
    files = [(place, file) for place, file in files if file.parent.name not in ("experiment", "launcher")]
    files = [(place, file) for place, file in files if "@" not in place or not is_variant(file)]
    needing = ("parquet", "robustbench")  # files of the user's, and a package that is on no index
    return [
        f"{place}={file.stem}" for place, file in files if ": ???" not in file.read_text() and file.stem not in needing
    ]


def refused(experiment: str, other: str, data_folder: Path) -> str:
    """What is wrong with an experiment in which a choice is replaced; empty if it builds."""
    try:
        build_parts(f"experiment={experiment}", other, f"data_dir={data_folder}")
    except (InputError, HydraException) as error:
        if ".norm: must be one of" in str(error):
            return ""  # an attack in a norm of its own, and a task that sets another: the line says what is possible
        return f"experiment={experiment} {other}: {error}"
    return ""


def test_choices_of_experiments_can_be_replaced(data_folder: Path) -> None:
    """A sample, and what was wrong once; all of them are below."""
    pairs = [
        ("robust_mnist_cpu", "attack=pgd"),
        ("robust_mnist_fgsm", "defence=none"),
        ("cifar_fast", "model=mlp"),
        ("patch_mnist", "physical=sticker"),
        ("backdoor_mnist", "trainer=sklearn"),
        ("robust_mnist_fgsm", "attack@references.margin=fgsm"),
        ("fooling_mnist", "attack@methods.many_steps=fgsm"),
    ]
    drawn = Random(0)
    for experiment in drawn.sample(EXPERIMENTS, 5):
        pairs.append((experiment, drawn.choice(others(experiment))))
    assert not list(filter(None, (refused(*pair, data_folder) for pair in pairs)))


@pytest.mark.faults
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_choice_of_an_experiment_can_be_replaced(experiment: str, data_folder: Path) -> None:
    words = others(experiment)
    words = sized(words, Random(0).sample(words, 5))
    assert not list(filter(None, (refused(experiment, other, data_folder) for other in words)))


def test_the_cifar_experiments_differ_in_one_thing_each() -> None:
    def varied(name: str) -> tuple[str, bool, int]:
        config = composed(f"experiment={name}")
        assert (config.trainer.epochs * 50_000 // config.trainer.batch_size, config.trainer.batch_size) == (10_000, 100)
        return config.model.normalization, config.trainer.flip, config.trainer.crop_padding

    assert varied("cifar_raw") == ("none", False, 0)
    assert varied("cifar_normalized") == ("dataset", False, 0)
    assert varied("cifar_flip") == ("dataset", True, 0)
    assert varied("cifar_crop") == ("dataset", True, 4)


@pytest.mark.data
def test_logistic_regressions_agree_on_mnist(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    accuracy = {
        name: measured(trustml, tmp_path, data_dir, f"experiment=mnist_logistic_{name}").test_accuracy[0]
        for name in ("sklearn", "numpy", "torch")
    }
    assert min(accuracy.values()) >= 0.92, accuracy
    assert max(accuracy.values()) - min(accuracy.values()) <= 0.005, accuracy


@pytest.mark.data
def test_mnist_cnn_is_accurate_and_not_robust(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = "trainer.epochs=3"  # of 10, which docs/results.md has
    assert measured(trustml, tmp_path, data_dir, "experiment=mnist_cnn", short).test_accuracy[0] >= 0.985
    words = ["task=fgsm", "model=mnist_cnn", "dataset=mnist", "task.epsilon=[0,0.1,0.25]", short]
    curve = measured(trustml, tmp_path, data_dir, *words).set_index("epsilon").robust_accuracy
    assert curve[0.0] >= 0.985
    assert curve[0.0] > curve[0.1] > curve[0.25]
    assert curve[0.25] < 0.5


@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar_raw", "cifar_normalized", "cifar_flip", "cifar_crop"])
def test_cifar_experiments_run_on_a_few_images(name: str, trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = ["trainer.epochs=2", "dataset.limit=2000"]
    row = measured(trustml, tmp_path, data_dir, f"experiment={name}", *short).iloc[0]
    assert row.test_accuracy_n == 2000
    assert row.test_accuracy_ci_low > 0.1  # better than guessing, after 40 steps


@pytest.mark.data
def test_the_fast_cifar_experiment_learns_from_a_few_images_in_its_small_form(
    trustml: Cli, tmp_path: Path, data_dir: Path
) -> None:
    small = ["dataset.limit=2000", "model.width=8", "compile=false", "precision=fp32"]
    short = ["trainer.epochs=4", "trainer.batch_size=64", "trainer.lr=46"]
    row = measured(trustml, tmp_path, data_dir, "experiment=cifar_fast", *small, *short).iloc[0]
    assert row.test_accuracy_n == 2000
    assert row.test_accuracy_ci_low > 0.25  # far better than guessing, after 124 steps


@pytest.mark.data
def test_photographs_in_folders_can_be_trained_on(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    words = ["dataset=image_folder", f"dataset.root={data_dir / 'cats_dogs'}", "dataset.size=32", "trainer.epochs=3"]
    row = measured(trustml, tmp_path, data_dir, "task=train", *words).iloc[0]
    assert row.test_accuracy_n == 1000
    assert row.test_accuracy_ci_low > 0.5  # better than guessing


@pytest.mark.data
def test_a_backdoor_opens_on_mnist_at_the_cost_of_no_accuracy(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = ["dataset.limit=4000", "task.poison_rate=0.1", "trainer.epochs=3"]
    row = measured(trustml, tmp_path, data_dir, "experiment=backdoor_mnist", *short).iloc[0]
    assert row.attack_success_rate >= 0.97
    assert row.baseline_attack_success_rate <= 0.02
    assert row.baseline_clean_accuracy - row.clean_accuracy <= 0.01


@pytest.mark.data
def test_a_backdoor_survives_a_new_head_on_mnist(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    row = measured(trustml, tmp_path, data_dir, "experiment=backdoor_transfer", "dataset.limit=3000").iloc[0]
    assert row.clean_accuracy - row.triggered_accuracy > 0.2
    assert row.baseline_clean_accuracy - row.baseline_triggered_accuracy < 0.1


@pytest.mark.data
def test_dogs_with_a_trigger_become_cats(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    words = ["experiment=backdoor_cats_dogs_scratch", "trainer.epochs=2"]
    row = measured(trustml, tmp_path, data_dir, *words).iloc[0]
    assert row.poisoned_images == 100
    assert row.attack_success_rate - row.baseline_attack_success_rate > 0.3


@pytest.mark.data
@pytest.mark.peers
def test_adult_is_debiased_and_fairlearn_agrees(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    short = ["experiment=debias_adult", "task.games=1", "task.rounds=100", "trainer.epochs=5"]
    rows = measured(trustml, tmp_path, data_dir, *short).set_index("stage")
    baseline, debiased = rows.loc["baseline"], rows.loc["debiased"]
    assert baseline.accuracy_n == debiased.accuracy_n == 9282
    assert baseline.accuracy >= 0.845
    assert debiased.accuracy >= 0.80
    for name in ("race", "sex"):
        assert baseline[f"p_rule_{name}"] < 50
        assert debiased[f"p_rule_{name}"] >= 75
        assert baseline[f"adversary_auc_{name}"] > 0.6
        assert debiased[f"adversary_auc_{name}"] <= 0.55

    config = composed(*short, f"data_dir={data_dir}")
    table, _ = (
        build(config.dataset, "dataset", TYPED).load(NO_CACHE).split_validation(config.task.validation_fraction, seed=0)
    )
    network = build(config.model, "model").build(input_spec(table))
    (weights,) = tmp_path.rglob("debiased.safetensors")
    network.load_state_dict(load_file(weights))
    with torch.no_grad():
        selected = network.eval()(table.test.inputs).argmax(1)
    for name, group in zip(("race", "sex"), table.test.sensitive.T, strict=True):
        known = {"y_true": table.test.labels, "y_pred": selected, "sensitive_features": group.numpy()}
        expected = {
            f"p_rule_{name}": 100 * fairlearn.demographic_parity_ratio(**known),
            f"demographic_parity_difference_{name}": fairlearn.demographic_parity_difference(**known),
            f"equalized_odds_difference_{name}": fairlearn.equalized_odds_difference(**known),
        }
        assert {column: debiased[column] for column in expected} == pytest.approx(expected, abs=1e-9, rel=0)
