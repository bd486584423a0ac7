"""task=defensive_distillation: masked gradients are told from robustness."""

from pathlib import Path

import pytest
import torch

from tests.helpers import Cli, facts, metrics, newest
from trustml_cli.tasks.defensive_distillation import Outcome

WORDS = [
    "task=defensive_distillation",
    "~attack@attacks.standard",
    "~attack@attacks.cw_margin",
    "~attack@attacks.substitute",
]


def test_zero_gradients_hide_what_the_same_gradient_without_rounding_finds(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(*WORDS, "task.temperature=[100,1]", "task.images=100", "dataset.limit=700")
    assert answer.returncode == 0, answer.stderr
    run = newest(tmp_path)
    table = metrics(run)
    assert list(table.temperature.unique()) == [1.0, 100.0]
    assert list(table.attack.unique()) == ["fgsm_softmax", "fgsm", "carried_over"]
    row = table.set_index(["temperature", "attack"])
    assert row.robust_accuracy[100, "fgsm_softmax"] > row.robust_accuracy[100, "fgsm"] + 0.3
    assert row.robust_accuracy[1, "fgsm_softmax"] == row.robust_accuracy[1, "fgsm"]
    assert row.zero_gradient_rate[100, "fgsm_softmax"] > 0.25
    assert row.zero_gradient_rate[100, "fgsm"] == 0
    assert row.verdict[100, "fgsm_softmax"].startswith(
        "not trustworthy: gradient masking (failed: gradients are not zero"
    )
    assert "masking" not in row.verdict[100, "fgsm"]
    assert facts(run)["verdict"].startswith("T = 100, fgsm_softmax: not trustworthy: gradient masking")


def test_the_strongest_other_attack_is_the_one_compared_with() -> None:
    def stood(count: int) -> Outcome:
        return Outcome(torch.arange(100) < count, None, [], 0.0)

    others = {"weak": stood(90), "strong": stood(10)}
    (finding,) = stood(50).compared(others, tried_standard=True).findings
    assert finding.passed is False
    assert finding.figure == "50.0 % of 100 images survive; 10.0 % under strong"
    (finding,) = stood(5).compared(others, tried_standard=True).findings
    assert finding.passed is True
    assert stood(5).compared(others, tried_standard=False).untried == ("attack=standard",)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("task.temperature=0", "task.temperature: must be above 0 and finite, got 0"),
        ("task.temperature=[]", "task.temperature: needs at least one number"),
        ("task.epsilon=0", "task.epsilon: must be above 0"),
        ("attacks.fgsm.norm=l2", "attacks.fgsm.norm: is l2, and carried.norm linf; give all the same"),
        ("carried.target=3", "carried.target: must be null"),
        ("dataset=census", "dataset: needs images"),
    ],
)
def test_what_cannot_be_compared_is_refused(word: str, message: str, trustml: Cli) -> None:
    answer = trustml(*WORDS, word, "trainer=smoke")
    assert answer.returncode == 2
    assert message in answer.stderr
