"""What is compared of victim and thief, and what is set aside for the thief."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.configs import choice, choices, composed
from tests.helpers import CPU, Cli, facts, measured, metrics, newest
from tests.tasks.parts import MODEL, TRAINER, Given
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.data.unseen import split_validation
from trustml_cli.defences.defence import Defence
from trustml_cli.extraction.linear import LinearClassifier, LinearLogits, LinearSoftmax
from trustml_cli.extraction.thief import Means, Thief
from trustml_cli.extraction.victim import Answer, Victim
from trustml_cli.system.hardware import seeded
from trustml_cli.tasks.attacker_images import AttackerImages
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.steal import Steal, compare, parameter_error, parameters_of, probability_error
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import Answers, predict


def handler(**changes: object) -> Steal:
    values = {"method": ["linear_logits"], "queries": [5], "returns": Answer.logits, "round_digits": None,
              "held_out": 0.25, "attacker_images": AttackerImages.held_out}  # fmt: skip
    return Steal(**{**values, **changes})  # type: ignore[arg-type]


def labels_thief() -> Thief:
    built: Thief = build(choice("thief", "linear_labels"), "thief")
    return built


LABELS = torch.tensor([0, 1, 2, 0])
ASKED = Answers(torch.tensor([[2.0, 0, 0], [0, 2, 0], [2, 0, 0], [0, 0, 2]]), LABELS)  # says 0 1 0 2
TOLD = Answers(torch.tensor([[2.0, 0, 0], [2, 0, 0], [2, 0, 0], [2, 0, 0]]), LABELS)  # says 0 0 0 0


def test_accuracies_and_agreement_by_hand() -> None:
    row = compare(ASKED, TOLD)
    assert (row["victim_accuracy"], row["stolen_accuracy"], row["agreement"]) == (0.5, 0.5, 0.5)
    assert row["agreement_n"] == 4
    assert compare(ASKED, ASKED)["agreement"] == 1.0


def test_the_largest_difference_of_probabilities() -> None:
    high, low = torch.tensor([2.0, 0, 0]).softmax(0)[:2].tolist()
    assert probability_error(LinearLogits(centre=0.5), ASKED, TOLD) == pytest.approx(high - low)
    assert probability_error(labels_thief(), ASKED, TOLD) is None


def test_parameters_are_compared_up_to_what_the_answers_hide() -> None:
    victim = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 0.0]])
    shifted = victim + torch.tensor([3.0, -1.0, 2.0])
    assert parameter_error(LinearLogits(centre=0.5).comparable, victim, shifted) == 3.0
    assert parameter_error(LinearSoftmax(centre=0.5).comparable, victim, shifted) == pytest.approx(0, abs=1e-6)
    shifted[0, 1] += 0.5
    assert parameter_error(LinearSoftmax(centre=0.5).comparable, victim, shifted) == pytest.approx(0.25)
    assert parameter_error(labels_thief().comparable, victim, shifted) is None
    assert parameter_error(LinearLogits(centre=0.5).comparable, None, shifted) is None
    assert parameter_error(LinearLogits(centre=0.5).comparable, victim, None) is None


def test_parameters_of_a_bent_network_there_are_none(tiny_data: Dataset) -> None:
    assert parameters_of(LinearClassifier(torch.ones(2, 64), torch.zeros(2)), tiny_data) is not None
    linear = nn.Linear(64, 2)
    nn.init.ones_(linear.weight)
    nn.init.constant_(linear.bias, -20)  # dark images are below, bright ones above: the ReLU bends between them
    assert parameters_of(nn.Sequential(nn.Flatten(), linear, nn.ReLU()), tiny_data) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queries": []}, "queries: needs at least one"),
        ({"queries": [5, 0]}, "queries: must be at least 1"),
        ({"round_digits": -1}, "round_digits: must be at least 0"),
        ({"held_out": 0.0}, "held_out: must be above 0 and below 1"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        handler(**changes)


@dataclass(frozen=True, kw_only=True)
class Onlooker(Thief):
    """Steals nothing; remembers what it was given, and returns its student as it is."""

    given: list[tuple[Means, nn.Module]]

    @property
    def needs(self) -> Answer:
        return Answer.labels

    def __call__(self, victim: Victim, queries: int, means: Means) -> nn.Module:
        victim.labels(means.images[:3])
        self.given.append((means, means.student().eval()))
        return self.given[-1][1]


def test_a_thief_is_given_images_of_its_own_and_a_student_of_another_seed(context: Context, tiny_data: Dataset) -> None:
    thief, task = Onlooker(given=[]), handler(method=["onlooker"], returns=Answer.labels)
    task(context, Given(limit=None, data=tiny_data), MODEL, TRAINER, {"onlooker": thief}, Defence(), MODEL)
    data, own = split_validation(tiny_data, 0.25, context.seed)
    ((means, student),) = thief.given
    assert isinstance(own, InMemory)
    assert torch.equal(means.images, own.inputs / 255)
    trained = context.train_or_load(context.spec(data, MODEL, TRAINER))
    with seeded(context.seed):
        beginning = MODEL.build(input_spec(data))
    assert not any(torch.equal(a, b) for a, b in zip(student.parameters(), beginning.parameters(), strict=True))
    row = metrics(context.record.directory).iloc[0]
    said = [predict(network, tiny_data.test, CPU) for network in (trained.network, student)]
    assert row.victim_accuracy == said[0].accuracy
    assert row.stolen_accuracy == said[1].accuracy
    assert row.agreement == (said[0].predicted == said[1].predicted).double().mean().item()
    assert row.queries_used == 3


@pytest.mark.parametrize(("task", "group"), [("steal", "thief"), ("explain", "explainer")])
def test_every_method_of_the_folder_is_in_the_task_s_list(task: str, group: str) -> None:
    assert sorted(composed(f"task={task}")[group]) == choices(group)


def test_the_headline_of_linear_thefts_is_the_error_of_the_weights(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=steal", "trainer=smoke", "task.queries=70"]
    assert trustml(*words, "task.method=[linear_logits,linear_softmax]").returncode == 0
    assert facts(newest(tmp_path))["headline"] == "max_parameter_error"
    table = metrics(newest(tmp_path)).set_index("method")
    assert (table.max_parameter_error < 1e-4).all()
    assert table.raw_parameter_error["linear_logits"] < 1e-4
    assert table.raw_parameter_error["linear_softmax"] > 0.01  # probabilities leave a shift open


def test_methods_that_do_not_fit_the_victim_are_left_out(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=steal", "model=mlp", "trainer=smoke", "task.queries=70", "thief.distill.steps=10"]
    assert trustml(*words).returncode == 0
    assert list(metrics(newest(tmp_path)).method) == ["distill"]
    student = load_file(newest(tmp_path) / "artifacts" / "distill_70.safetensors")
    assert [len(student[key]) for key in sorted(student) if key.endswith("weight")] == [256, 128, 10]  # the mlp's


@pytest.mark.data
def test_a_logistic_regression_of_mnist_is_stolen_whole(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    words = ["experiment=steal_mnist_logistic", "task.queries=785"]
    exact = measured(trustml, tmp_path, data_dir, *words).set_index("method")
    assert (exact.agreement == 1.0).all()
    assert (exact.agreement_n == 10_000).all()
    assert (exact.queries_used == 785).all()
    assert exact.max_parameter_error.linear_logits <= 1e-4
    assert (exact.max_probability_error <= 1e-5).all()
    rounded = measured(trustml, tmp_path, data_dir, *words, "task.round_digits=2").set_index("method")
    assert 0.95 < rounded.agreement.linear_softmax < rounded.agreement.linear_logits < 1.0


@pytest.mark.data
def test_a_network_of_mnist_is_stolen_from_a_few_thousand_answers(trustml: Cli, tmp_path: Path, data_dir: Path) -> None:
    short = ["trainer.epochs=1", "trainer.steps_per_epoch=400", "task.queries=[100,2000]", "thief.distill.epochs=5"]
    few, many = measured(trustml, tmp_path, data_dir, "experiment=steal_mnist_cnn", *short).agreement
    assert many > 0.93 > few
