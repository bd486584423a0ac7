"""A training step and a defence from outside: one file and one YAML each, with nothing of ours edited."""

from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from tests.helpers import Cli, metrics, newest

STEP = '''
from dataclasses import dataclass

import torch

from trustml_cli.defences.defence import Defence
from trustml_cli.training.step import TrainingStep


@dataclass(frozen=True, kw_only=True)
class Mixup(Defence, TrainingStep):
    """Zhang et al. 2018, arXiv 1710.09412: convex combinations of two examples and of their losses."""

    share: float

    def __call__(self, state, x, y):
        order = torch.randperm(len(x))
        mixed = self.share * x + (1 - self.share) * x[order]

        def closure():
            logits = state.network(mixed)
            own, other = state.cross_entropy(logits, y), state.cross_entropy(logits, y[order])
            return self.share * own + (1 - self.share) * other, logits

        state.memory["batches"] = state.memory.get("batches", 0) + 1
        return state.step(closure)

    def history(self, state):
        return {"batches": float(state.memory["batches"])}
'''

DEFENCE = '''
from dataclasses import dataclass

import torch

from trustml_cli.defences.defence import RobustTraining
from trustml_cli.training.step import CROSS_ENTROPY


@dataclass(frozen=True, kw_only=True)
class Noise(RobustTraining):
    """Learns from images with random signs added, as large as the budget."""

    def __call__(self, state, x, y):
        noisy = (x + self.epsilon * torch.randn_like(x).sign()).clamp(0, 1)
        return CROSS_ENTROPY(state, noisy, y)
'''

FromOutside = Callable[[str, str, str], list[str]]


@pytest.fixture
def from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FromOutside:
    """Writes a module and its YAML; returns the words of the command line that find both."""

    def write(module: str, code: str, keys: str) -> list[str]:
        (tmp_path / f"{module}.py").write_text(code)
        folder = tmp_path / "own" / "defence"
        folder.mkdir(parents=True)
        (folder / f"{module}.yaml").write_text(keys)
        monkeypatch.syspath_prepend(tmp_path)
        return ["--config-dir", "own", f"defence={module}", f"allow=[{module}]", "model=mlp", "trainer=smoke"]

    return write


def test_a_training_step_from_outside_trains_and_reports_its_columns(
    from_outside: FromOutside, trustml: Cli, tmp_path: Path
) -> None:
    words = from_outside("mixup", STEP, "_target_: mixup.Mixup\nshare: 0.8\n")
    answer = trustml("task=train", *words, "trainer.epochs=2", "trainer.steps_per_epoch=7")
    assert answer.returncode == 0, answer.stderr
    history = pandas.read_csv(newest(tmp_path) / "history.csv")
    assert history.batches.tolist() == [7, 14]
    answer = trustml("task=train", *words, "trainer=numpy", "model=logistic")
    assert answer.returncode == 2
    assert "trainer=default" in answer.stderr


def test_a_defence_from_outside_is_attacked_like_any_other(
    from_outside: FromOutside, trustml: Cli, tmp_path: Path
) -> None:
    words = from_outside("noise", DEFENCE, "_target_: noise.Noise\nnorm: linf\nepsilon: 0.1\nmonitor_images: 20\n")
    few = ["trainer.steps_per_epoch=7", "task.check_images=0", "task.images=40", "task.surfaces=0"]
    answer = trustml("task=attack", *words, *few, "attack=fgsm")
    assert answer.returncode == 0, answer.stderr
    assert set(metrics(newest(tmp_path)).defence) == {"noise"}
    history = pandas.read_csv(newest(tmp_path) / "history.csv")
    assert history.train_robust_accuracy.between(0.01, 1).all()
