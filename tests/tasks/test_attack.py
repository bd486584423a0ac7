"""The rows and checks of a robustness measurement, worked out by hand on four images."""

from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.helpers import TIMES, Cli, MakeContext, facts, metrics, newest
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.measure import attack_curve
from trustml_cli.attacks.robustness_curve import EpsilonResult, RobustnessCurve
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.evaluation import RobustnessEvaluation, robustness_row
from trustml_cli.tasks.verdict import check_saved


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above one half; `scale` makes it as sure of itself as one likes."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)


# four images of one brightness each; the model takes the third for a bright one
X = torch.tensor([0.1, 0.45, 0.6, 0.9]).view(4, 1, 1, 1).expand(4, 1, 2, 2).contiguous()
Y = torch.tensor([0, 0, 0, 1])


def curve_of(model: nn.Module, epsilons: list[float], target: int | None = None) -> RobustnessCurve:
    attack = FGSM(norm=Norm.linf, target=target)
    batches = [(X[:3], Y[:3]), (X[3:], Y[3:])]
    return attack_curve(model, attack, batches, epsilons, keep=3)


def rows_of(curve: RobustnessCurve, attacked: EpsilonResult, target: int | None) -> dict[str, Any]:
    return robustness_row(curve.labels, curve.clean, attacked.answers, attacked, FGSM(norm=Norm.linf, target=target))


def four() -> Dataset:
    """The four images as a data set."""
    split = InMemory(X, Y)
    return Dataset(split, split, ("dark", "bright"), fingerprint="four", source="made up")


@pytest.fixture
def context(make_context: MakeContext) -> Context:
    return make_context(task="fgsm", dataset="four", model="brightness", attack="fgsm")


def test_rows_worked_out_by_hand() -> None:
    curve = curve_of(Brightness(4.0), [0.0, 0.1])
    assert curve.initially_right.tolist() == [True, True, False, True]
    before, after = (rows_of(curve, attacked, None) for attacked in curve.attacked)
    assert (before["clean_accuracy"], before["robust_accuracy"], before["attack_success_rate"]) == (0.75, 0.75, 0.0)
    # 0.45 becomes 0.55 and falls; 0.1 and 0.9 stand; 0.6, wrong from the start, becomes 0.7
    assert (after["clean_accuracy"], after["robust_accuracy"]) == (0.75, 0.5)
    assert after["attack_success_rate"] == pytest.approx(1 / 3)
    assert (after["attack_success_rate_n"], after["robust_accuracy_n"]) == (3, 4)
    assert after["mean_l0"] == 4
    assert after["mean_linf"] == pytest.approx(0.1)
    assert after["mean_l2"] == pytest.approx(0.2)
    assert after["mean_l1"] == pytest.approx(0.4)
    assert (after["mean_l1_n"], after["mean_l1_ci_low"]) == (4, pytest.approx(0.4))
    assert after["sure_success_rate"] == 0  # 60 % sure of the wrong class
    margins = torch.tensor([0.3, 0.05, 0.2, 0.3])  # |brightness − 0.5| after the attack
    assert after["mean_confidence"] == pytest.approx(torch.sigmoid(8 * margins).mean().item(), abs=1e-6)


def test_a_targeted_success_is_the_target_and_nothing_else() -> None:
    curve = curve_of(Brightness(4.0), [0.1], target=1)
    assert curve.attacked[0].answers.predicted.tolist() == [0, 1, 1, 1]
    row = rows_of(curve, curve.attacked[0], 1)
    assert row["attack_success_rate"] == pytest.approx(2 / 3)  # of the three that were right, two are seen as class 1


def test_a_success_is_sure_from_nine_tenths_of_confidence_on() -> None:
    curve = curve_of(Brightness(4.0), [0.1, 0.5])  # 0.45 becomes 0.55, then 0.95: a confidence of 1 / (1 + e^−3.6)
    rows = [rows_of(curve, attacked, None) for attacked in curve.attacked]
    assert [row["attack_success_rate"] for row in rows] == [pytest.approx(1 / 3), 1.0]
    assert [row["sure_success_rate"] for row in rows] == [0.0, pytest.approx(1 / 3)]


class Halfway(SmallestPerturbation):
    """Makes every pixel 0.55 where that is brighter; there the model sees class 1."""

    norms = (Norm.linf,)

    def smallest(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.where((y == 0) & (model(x).argmax(1) == 0) & (x.amin((1, 2, 3)) > 0.2), 0.55, 0.0)[
            :, None, None, None
        ].maximum(x)


def test_one_search_gives_the_distance_of_every_image_and_with_it_every_epsilon(context: Context) -> None:
    asked = []
    model = Brightness(4.0)
    model.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    attack = Halfway(norm=Norm.linf, target=None)
    batches = [(X[:3], Y[:3]), (X[3:], Y[3:])]
    curve = attack_curve(model, attack, batches, [0.0, 0.05, 0.2], keep=3)
    assert curve.distance is not None
    assert curve.distance.tolist() == [
        torch.inf,
        pytest.approx(0.1),
        0,
        torch.inf,
    ]  # not found, found, wrong, not found
    for attacked in curve.attacked:
        right = attacked.answers.predicted == curve.labels
        assert torch.equal(right, curve.distance > attacked.epsilon)
    evaluation = RobustnessEvaluation(context, model, attack, four(), four().test, curve)
    assert evaluation.distance["median_distance"] == torch.inf
    evaluation.write_rows({}, {})
    saved = load_file(context.record.directory / "artifacts" / "distances.safetensors")
    assert torch.equal(saved["distance"], curve.distance)


def test_accuracy_by_class_worked_out_by_hand(context: Context) -> None:
    curve = curve_of(Brightness(4.0), [0.0, 0.1])
    attack = FGSM(norm=Norm.linf, target=None)
    rows = RobustnessEvaluation(context, Brightness(4.0), attack, four(), four().test, curve).class_rows(
        {"defence": "a"}
    )
    values = [(row["epsilon"], row["class"], row["clean_accuracy"], row["robust_accuracy"]) for row in rows]
    third = pytest.approx(1 / 3)
    assert values == [
        (0, "dark", 2 / 3, 2 / 3), (0, "bright", 1, 1), (0.1, "dark", 2 / 3, third), (0.1, "bright", 1, 1)
    ]  # fmt: skip
    assert [row["robust_accuracy_n"] for row in rows] == [3, 1, 3, 1]
    assert {row["defence"] for row in rows} == {"a"}


def test_the_first_images_are_kept_across_batches() -> None:
    curve = curve_of(Brightness(4.0), [0.0, 0.1])
    assert torch.equal(curve.examples, X[:3])
    assert torch.equal(curve.attacked[0].examples, X[:3])
    assert len(curve.attacked[1].answers.predicted) == 4


def test_saved_images_are_read_back_and_judged(context: Context) -> None:
    curve = curve_of(Brightness(4.0), [0.05, 0.1])
    assert [finding.passed for finding in check_saved(context, curve, Brightness(4.0), Norm.linf)] == [True, True]
    saved = load_file(context.record.directory / "artifacts" / "adversarial.safetensors")
    assert saved["labels"].tolist() == curve.labels[:3].tolist()
    assert torch.equal(saved["original"], X[:3])
    for name in ("original", "epsilon_0.05", "epsilon_0.1"):
        assert saved[f"{name}.predicted"].tolist() == Brightness(4.0)(saved[name]).argmax(1).tolist()


def test_saved_images_over_the_budget_or_judged_otherwise_are_noticed(context: Context) -> None:
    curve = curve_of(Brightness(4.0), [0.1])
    curve.attacked[0].epsilon = 0.09
    assert [finding.passed for finding in check_saved(context, curve, Brightness(-4.0), Norm.linf)] == [False, False]


NEAREST = """
import torch
from torch import nn

class Nearest(nn.Module):
    \"""The nearest of ten rows of pixels; in bfloat16, and no gradient leads back to the image.\"""

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.rand(10, 64, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        with torch.no_grad():
            pixels = x.flatten(1) + 0
        return -torch.cdist(pixels, self.means).bfloat16()
"""


@pytest.mark.parametrize("attack", [["attack=square", "attack.queries=20"], ["attack=pgd"]], ids=["square", "pgd"])
def test_a_network_without_gradients_is_for_attacks_without(attack: list[str], trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "nearest.py").write_text(NEAREST)
    words = ["model=custom", "model.factory=nearest:Nearest", "trainer=smoke", "dataset.limit=60", "task.epsilon=0.2"]
    answer = trustml("task=attack", *attack, *words, "task.check_images=10", "references.black_box.queries=5")
    if attack == ["attack=pgd"]:
        assert answer.returncode == 2
        assert answer.stderr.startswith("trustml: error: attack: needs gradients by the image")
        return
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    assert (metrics(run).gradients == 0).all()
    assert facts(run)["attack_asked"] == "the network itself: a copy would cost no less"
    checks = {check["name"]: check["passed"] for check in facts(run)["checks"]}
    assert checks["gradients are not zero"] is None
    assert checks["answers and gradients are numbers"] is True


def test_the_headline_of_confident_is_the_share_of_sure_errors(trustml: Cli, tmp_path: Path) -> None:
    words = ["attack=confident", "trainer=smoke", "task.images=20", "task.check_images=0", "task.surfaces=0"]
    answer = trustml("task=attack", *words, "model=logistic", "task.transfer_to=mlp", "task.epsilon=[0,1]")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    assert facts(run)["headline"] == "sure_success_rate"
    table = metrics(run).set_index(["epsilon", "scored_on"])
    assert table.sure_success_rate[1, "logistic"] > table.sure_success_rate[1, "mlp"]
    assert (run / "plots" / "transfer.png").exists()


MNIST = ["dataset=mnist", "model=mnist_cnn", "dataset.limit=500", "trainer.epochs=15", "task.check_images=0"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("words", "column", "lowest", "highest"),
    [
        (["task.epsilon=0.3", "attack.steps=20"], "robust_accuracy", 0.0, 0.01),
        (["attack=confident", "attack.nothing_erased=true", "task.epsilon=1"], "sure_success_rate", 0.95, 1.0),
        (["attack=confident", "attack.binary=true", "task.epsilon=0.5"], "sure_success_rate", 0.95, 1.0),
        (["attack=confident", "attack.target=8", "task.epsilon=1"], "sure_success_rate", 0.8, 1.0),
    ],
    ids=["pgd", "nothing erased", "binary", "chosen class"],
)
def test_an_undefended_mnist_network_falls(
    words: list[str], column: str, lowest: float, highest: float,
    trustml: Cli, data_dir: Path, tmp_path: Path,
) -> None:  # fmt: skip
    answer = trustml("task=attack", *MNIST, f"data_dir={data_dir}", *words)
    assert answer.returncode == 0, answer.stderr
    row = metrics(newest(tmp_path)).iloc[0]
    assert row.clean_accuracy > 0.85
    assert lowest <= row[column] <= highest


def test_a_run_whose_memory_runs_out_goes_on_in_smaller_batches_and_says_so(
    trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "task=fgsm",
        "model=logistic",
        "trainer=smoke",
        "task.epsilon=0.1",
        "task.check_images=0",
        "task.examples=1",
        "task.save=all",
    ]
    assert trustml(*words).returncode == 0
    whole = newest(tmp_path)
    enough = FGSM.loss_gradient

    def scarce(attack: FGSM, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if len(x) > 70:
            raise torch.OutOfMemoryError("out of memory")
        return enough(attack, model, x, y)

    monkeypatch.setattr(FGSM, "loss_gradient", scarce)
    answer = trustml(*words)
    assert answer.returncode == 0, answer.stderr
    assert "memory ran out: batches of 250 images were cut to 62" in answer.stdout + answer.stderr
    tables = [metrics(run).drop(columns=TIMES, errors="ignore") for run in (whole, newest(tmp_path))]
    pandas.testing.assert_frame_equal(*tables)
    assert facts(newest(tmp_path))["batch_size"] == 62
    saved = load_file(newest(tmp_path) / "artifacts" / "adversarial.safetensors")
    assert saved["epsilon_0.1"].shape == (450, 1, 8, 8)
    right = saved["epsilon_0.1.predicted"] == saved["labels"]
    assert float(right.double().mean()) == pytest.approx(tables[1].robust_accuracy[0])
