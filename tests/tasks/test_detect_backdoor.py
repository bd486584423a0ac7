"""What task=detect_backdoor inspects and writes."""

from pathlib import Path

import pytest

from tests.configs import choices
from tests.helpers import Cli, facts, metrics, newest

QUICK = ("model=mlp", "trainer.epochs=3", "suspicion.neural_cleanse.steps=20", "suspicion.strip.overlays=8")


def test_each_detector_is_measured_on_a_poisoned_and_on_a_clean_network(trustml: Cli, tmp_path: Path) -> None:
    words = ("concealment=adversarial", "concealment.lambda=[0,0.5]", "task.images=700")
    answer = trustml("task=detect_backdoor", *QUICK, *words)
    assert answer.returncode == 0, answer.stderr
    rows = metrics(newest(tmp_path))
    names = choices("suspicion")
    assert sorted(rows.suspicion.unique()) == names
    networks = [tuple(pair) for pair in rows[["network", "lambda"]].drop_duplicates().to_numpy()]
    assert networks == [("poisoned", 0), ("poisoned", 0.5), ("clean", 0)]
    clean, poisoned = rows[rows.network == "clean"], rows[rows.network == "poisoned"]
    assert clean[["auroc", "caught_rate", "removed_rate", "linear_probe_auroc"]].isna().all(axis=None)
    assert set(clean.flagged_rate_n) == set(rows.inspected_images) == {700}
    assert (clean.attack_success_rate < 0.1).all()
    assert (poisoned.attack_success_rate > 0.5).all()
    assert poisoned[["auroc", "caught_rate", "removed_rate", "linear_probe_auroc"]].notna().all(axis=None)
    assert (poisoned.caught_rate_n + poisoned.flagged_rate_n == 700).all()
    assert (rows.anomaly_index.notna() == (rows.suspicion == "neural_cleanse")).all()
    strip = poisoned[(poisoned.suspicion == "strip") & (poisoned["lambda"] == 0)].iloc[0]
    assert strip.auroc > 0.9
    assert strip.caught_rate > 0.7
    checks = {check["name"]: check for check in facts(newest(tmp_path))["checks"]}
    never = checks["strip does not flag a network that was never poisoned"]
    assert never["passed"]
    assert "up to 9.7 % expected" in never["figure"]  # 5 % + 3 · √(0.05 · 0.95 · (1 / 700 + 1 / 269))
    plots = {file.stem for file in (newest(tmp_path) / "plots").iterdir()}
    assert plots == {"concealment", "scores", "latents", "masks"}


def test_a_table_is_inspected_by_its_latents(trustml: Cli, tmp_path: Path) -> None:
    words = ("dataset=census", "model=mlp", "trigger=columns", "trigger.values={hours_per_week: 99}", "trainer=smoke")
    refused = trustml("task=detect_backdoor", *words, "task.suspicion=strip")
    assert refused.returncode == 2
    assert "task.suspicion: strip needs images" in refused.stderr
    answer = trustml("task=detect_backdoor", *words)
    assert answer.returncode == 0, answer.stderr
    assert "neural_cleanse needs images, and is left out" in answer.stdout + answer.stderr
    assert metrics(newest(tmp_path)).suspicion.tolist() == ["spectral", "clustering"] * 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task.suspicion=spectra",), ("task.suspicion", "'spectral'")),
        (("task.images=3",), ("task.images", "0 of the 3", "use more")),
        (("task.clean_share=1",), ("task.clean_share", "below 1")),
        (("concealment=adversarial", "concealment.lambda=-1"), ("concealment.lambda", "at least 0")),
        (("concealment=adversarial", "model=logistic", "trainer=numpy"), ("trainer", "use trainer=default")),
        (("task=backdoor", "concealment=adversarial", "concealment.lambda=[0,1]"), ("concealment.lambda", "-m")),
        (("task=backdoor", "concealment=adversarial", "defence=pgd"), ("concealment", "use defence=none")),
    ],
)
def test_bad_input_is_refused_before_training(words: tuple[str, ...], expected: tuple[str, ...], trustml: Cli) -> None:
    task = () if words[0].startswith("task=") else ("task=detect_backdoor",)
    answer = trustml(*task, *words)
    assert answer.returncode == 2, answer.stderr
    assert all(word in answer.stderr for word in expected), answer.stderr
    assert "training model" not in answer.stdout
