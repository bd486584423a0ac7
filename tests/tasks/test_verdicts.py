"""Networks with a fault that is known get the verdict that they deserve, at default settings."""

from pathlib import Path

import pytest

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.attacks.power import GAP

PLANTED = """
import torch
from torch import nn

class Planted(nn.Module):  # the fault is there whenever nobody trains
    def __init__(self, fault, classes):
        super().__init__()
        first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.inner = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(512, classes))
        self.fault = fault

    def forward(self, x):
        if self.training or self.fault == "none":
            return self.inner(x)
        if self.fault == "random":
            return self.inner(x + 0.1 * torch.randn_like(x))
        return 1000 * self.inner(x)

def network(fault, shape, num_classes):
    return Planted(fault, num_classes)
"""
FAULTS = ["none", "scaled", "random"]


def judged(trustml: Cli, tmp_path: Path, *words: str) -> tuple[float, str]:
    """Robust accuracy and verdict of a command."""
    answer = trustml(*words, "task.surfaces=0")
    assert answer.returncode == 0, answer.stderr
    return metrics(newest(tmp_path)).robust_accuracy.iloc[-1], facts(newest(tmp_path))["verdict"]


def deserves(accuracy: float, verdict: str, strongest: float) -> None:
    """`trustworthy` is for numbers within 3 points of what the strongest attack leaves."""
    if accuracy - strongest > GAP:
        assert verdict.startswith("not trustworthy: ")
        assert "attack=standard" in verdict  # what to run next
    if verdict == "trustworthy":
        assert accuracy - strongest <= GAP


@pytest.mark.faults
@pytest.mark.parametrize(
    "words", [["defence.epsilon=0.2"], ["defence.epsilon=0.2", "trainer.label_smoothing=0.3"]], ids=["trades", "smooth"]
)
def test_trades_that_looks_twenty_points_better_under_cross_entropy_is_found(
    words: list[str], trustml: Cli, tmp_path: Path
) -> None:
    words = ["defence=trades", *words]
    accuracy, verdict = judged(trustml, tmp_path, "task=robust_train", "task.baseline=false", *words)
    strongest, believed = judged(trustml, tmp_path, "task=attack", "attack=apgd_t", "task.epsilon=0.2", *words)
    assert accuracy - strongest > 0.1
    assert "too weak an attack" in verdict
    assert "a targeted attack is not stronger" in verdict
    deserves(accuracy, verdict, strongest)
    deserves(strongest, believed, strongest)


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS)
def test_custom_networks_with_a_fault_get_what_they_deserve(fault: str, trustml: Cli, tmp_path: Path) -> None:
    (tmp_path / "planted_network.py").write_text(PLANTED)
    custom = ["model=custom", "model.factory=planted_network:network", f"+model.arguments.fault={fault}"]
    accuracy, verdict = judged(trustml, tmp_path, "task=attack", "task.epsilon=0.1", *custom)
    strongest, believed = judged(trustml, tmp_path, "task=attack", "task.epsilon=0.1", "attack=apgd_t", *custom)
    if fault == "random":
        assert "a model that answers differently each time" in verdict
        assert "a model that answers differently each time" in believed
        return
    assert "masking" not in verdict
    deserves(accuracy, verdict, strongest)
    assert believed == "trustworthy"


@pytest.mark.faults
def test_a_linear_model_is_held_against_its_optimum(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=attack", "model=logistic", "task.epsilon=0.1", "attack.norm=linf"]
    strongest, believed = judged(trustml, tmp_path, *words, "attack=linear")
    assert believed == "trustworthy"
    accuracy, verdict = judged(trustml, tmp_path, *words)
    assert accuracy > strongest + GAP
    assert verdict.endswith("Run `attack=linear attack.norm=linf` for the optimum of this linear model")
    assert judged(trustml, tmp_path, *words, "attack=apgd_t")[1] == "trustworthy"
