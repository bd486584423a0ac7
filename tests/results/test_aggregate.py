"""Many runs as one table, and over seeds, worked out by hand."""

import json
from math import isnan, sqrt
from pathlib import Path

import pandas
import pytest
from numpy.random import PCG64, Generator

from trustml_cli.metrics.columns import OVER_SEEDS, POOLED
from trustml_cli.metrics.intervals import proportion
from trustml_cli.results.aggregate import answers_of, conditions_of, read_runs, same, summarise, sweep_table
from trustml_cli.sweeps.callback import tabulate


def leave_run(folder: Path, number: int, epsilon: str, seed: int, accuracy: float | None, **facts: object) -> None:
    """A run directory as the recorder leaves it; without an accuracy it failed."""
    run = folder / f"job{number}"
    run.mkdir()
    words = ["trustml", f"seed={seed}", f"task.epsilon={epsilon}", "model=cnn"]
    known = {"task": "fgsm", "dataset": "digits", "model": "cnn", "seed": seed, "started": f"{number:02}"}
    ended = {"status": "completed", "conditions": ["epsilon"], "headline": "accuracy"} if accuracy is not None else {}
    (run / "run.json").write_text(json.dumps({**known, "command": words, **ended, **facts}))
    if accuracy is not None:
        row = {"task": "fgsm", "dataset": "digits", "model": "cnn", "seed": seed, "epsilon": float(epsilon),
               "accuracy": accuracy, "accuracy_ci_low": accuracy - 0.02, "accuracy_ci_high": accuracy + 0.02,
               "accuracy_n": 450, "loss": 2 * accuracy}  # fmt: skip
        pandas.DataFrame([row]).to_csv(run / "metrics.csv", index=False)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for number, (epsilon, seed, accuracy) in enumerate(
        [("0.0", 0, 0.9), ("0.0", 1, 0.8), ("0.0", 2, 0.7), ("0.10", 0, 0.5)]
    ):
        leave_run(tmp_path, number, epsilon, seed, accuracy)
    leave_run(tmp_path, 4, "0.10", 1, None, status="failed", error="the loss became nan")
    leave_run(tmp_path, 5, "0.10", 2, None, status="running")
    return tmp_path


def test_every_job_has_its_rows_overrides_and_status(sweep: Path) -> None:
    table = sweep_table(read_runs(sweep))
    assert list(table.columns[:4]) == ["task", "dataset", "model", "seed"]
    assert list(table.columns[-3:]) == ["status", "error", "run"]
    assert table.status.tolist() == ["completed"] * 4 + ["failed", "killed"]
    assert table["task.epsilon"].tolist() == ["0.0", "0.0", "0.0", "0.10", "0.10", "0.10"]
    assert table.accuracy.tolist()[:4] == [0.9, 0.8, 0.7, 0.5]
    assert table.error.tolist()[4] == "the loss became nan"


def test_an_override_that_repeats_a_condition_is_no_condition_of_its_own(sweep: Path) -> None:
    runs = read_runs(sweep)
    assert conditions_of(runs, sweep_table(runs)) == ["task", "dataset", "model", "epsilon"]


def test_means_deviations_and_intervals_over_seeds(sweep: Path) -> None:
    runs = read_runs(sweep)
    table = sweep_table(runs)
    summary = summarise(table, conditions_of(runs, table)).set_index("epsilon")
    assert summary.seeds.tolist() == [3, 1]
    assert summary.accuracy[0.0] == pytest.approx(0.8)
    assert summary.accuracy_std[0.0] == pytest.approx(0.1)
    half = 4.302652729911275 * 0.1 / sqrt(3)  # Student's t, two degrees of freedom
    assert summary.loss[0.0] == pytest.approx(1.6)
    assert summary.loss_over_seeds_ci_low[0.0] == pytest.approx(1.6 - 2 * half)
    assert "loss_pooled_ci_low" not in summary, "nothing is known of other test images"
    assert summary.accuracy_over_seeds_ci_low[0.0] == pytest.approx(0.8 - half)
    assert summary.accuracy_over_seeds_ci_high[0.0] == 1.0  # a proportion ends there; 0.8 + half is more
    assert summary.accuracy_pooled_ci_low[0.0] == pytest.approx(0.8 - sqrt(half**2 + 0.02**2))


def test_one_seed_keeps_the_interval_of_its_run(sweep: Path) -> None:
    runs = read_runs(sweep)
    table = sweep_table(runs)
    row = summarise(table, conditions_of(runs, table)).set_index("epsilon").loc[0.1]
    own = (row.accuracy, row.accuracy_pooled_ci_low, row.accuracy_pooled_ci_high)
    assert own == pytest.approx((0.5, 0.48, 0.52))
    assert isnan(row.accuracy_over_seeds_ci_low)
    assert isnan(row.accuracy_std)
    assert isnan(row.loss_over_seeds_ci_low)


def test_a_sweep_of_failures_has_an_empty_summary(tmp_path: Path) -> None:
    leave_run(tmp_path, 0, "0.1", 0, None, status="failed", error="no")
    runs = read_runs(tmp_path)
    table = sweep_table(runs)
    assert summarise(table, conditions_of(runs, table)).empty
    (nothing,) = answers_of(runs, table)
    assert (nothing.headline, len(nothing.summary)) == (None, 0)


def test_a_run_killed_while_it_claimed_its_directory_counts_as_killed(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "run.json").touch()
    assert [run.status for run in read_runs(tmp_path)] == ["killed"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2], ["1.0", "2"], True),
        ([1, 2], ["a", "b"], False),
        (["a", "b"], [1, 2], False),
        (["a", "1"], ["b", "1"], False),
        (["a", "b"], ["a", "b"], True),
    ],
)
def test_columns_of_numbers_and_words_are_told_apart(one: list[object], other: list[object], expected: bool) -> None:
    assert same(pandas.Series(one), pandas.Series(other)) is expected


def test_no_interval_is_further_out_than_its_value_can_be(tmp_path: Path) -> None:
    natural = {"mean_l0": (40.0, 50.0), "ece": (0.01, 0.03), "images_per_second": (9000.0, 70000.0),
               "p_rule_sex": (99.0, 70.0), "rank_correlation_lime": (-0.9, 0.9), "threshold": (0.1, 0.3)}  # fmt: skip
    for seed in range(2):
        leave_run(tmp_path, seed, "0.10", seed, 0.99 - seed / 100)
        file = tmp_path / f"job{seed}" / "metrics.csv"
        pandas.read_csv(file).assign(**{name: both[seed] for name, both in natural.items()}).to_csv(file, index=False)
    runs = read_runs(tmp_path)
    table = sweep_table(runs)
    row = summarise(table, conditions_of(runs, table)).iloc[0]
    ends = {name: (row[f"{name}_over_seeds_ci_low"], row[f"{name}_over_seeds_ci_high"]) for name in natural}
    half = 12.706  # Student's t with one degree of freedom, times the standard error
    assert ends.pop("threshold") == pytest.approx((0.2 - half / 10, 0.2 + half / 10), abs=0.001)
    assert ends.pop("mean_l0") == pytest.approx((0, 45 + 5 * half), abs=0.01)
    assert ends.pop("ece") == pytest.approx((0, 0.02 + half / 100), abs=0.001)
    assert ends.pop("images_per_second") == pytest.approx((0, 39500 + 30500 * half), rel=1e-4)
    assert ends == {"p_rule_sex": (0, 100), "rank_correlation_lime": (-1, 1)}
    assert row.accuracy_over_seeds_ci_high == row.accuracy_pooled_ci_high == 1.0


def test_a_pooled_interval_covers_what_one_over_seeds_leaves_out() -> None:
    """Networks of one kind, each shown the same 100 test images; how often the true accuracy is in the interval."""
    random = Generator(PCG64(0))
    covered = dict.fromkeys((OVER_SEEDS, POOLED), 0)
    for _ in range(200):
        images = random.random(100) < 0.8  # hard and easy ones, the same for all seeds
        rows = []
        for seed in range(5):
            right = int((images ^ (random.random(100) < 0.02)).sum())
            rows.append({"task": "train", "seed": seed, "status": "completed", **proportion("accuracy", right, 100)})
        row = summarise(pandas.DataFrame(rows), ["task"]).iloc[0]
        truth = 0.8 * 0.98 + 0.2 * 0.02
        for whose in covered:
            covered[whose] += row[f"accuracy{whose}_ci_low"] <= truth <= row[f"accuracy{whose}_ci_high"]
    assert covered[OVER_SEEDS] < 100
    assert covered[POOLED] >= 185


def test_rows_of_one_seed_are_one_seed() -> None:
    rows = [
        {"task": "t", "seed": seed, "status": "completed", "loss": seed + half} for seed in (1, 2) for half in (0, 1)
    ]
    row = summarise(pandas.DataFrame(rows), ["task"]).iloc[0]
    assert (row.seeds, row.loss, row.loss_std) == (2, 2.0, pytest.approx(sqrt(0.5)))


def test_a_condition_stays_though_it_says_the_same_as_another_column(tmp_path: Path) -> None:
    leave_run(tmp_path, 0, "0.10", 0, 0.9, conditions=["attack", "epsilon"])
    file = tmp_path / "job0" / "metrics.csv"
    pandas.read_csv(file).assign(attack="fgsm").to_csv(file, index=False)  # as the task is called, too
    runs = read_runs(tmp_path)
    assert conditions_of(runs, sweep_table(runs)) == ["task", "dataset", "model", "attack", "epsilon"]


def test_a_file_that_cannot_be_read_is_a_run_without_rows(sweep: Path) -> None:
    (sweep / "job0" / "metrics.csv").write_text("")
    table = sweep_table(read_runs(sweep))
    assert len(table) == 6
    assert isnan(table.accuracy[0])


def test_each_question_has_a_summary_of_its_own(sweep: Path) -> None:
    row = {"task": "steal", "dataset": "digits", "model": "cnn", "seed": 0, "loss": 7.0, "agreement": 0.5}
    asked = {"task": "steal", "headline": "agreement", "conditions": ["loss"]}  # a value of the other task
    leave_run(sweep, 6, "0.0", 0, 0.1, **asked)
    pandas.DataFrame([row]).to_csv(sweep / "job6" / "metrics.csv", index=False)
    runs = read_runs(sweep)
    fgsm, steal = answers_of(runs, sweep_table(runs))
    assert (fgsm.headline, fgsm.varied, list(fgsm.summary.epsilon)) == ("accuracy", ["epsilon"], [0.0, 0.1])
    assert fgsm.summary.loss[0] == pytest.approx(1.6)
    assert (steal.headline, steal.varied, list(steal.summary.agreement)) == ("agreement", [], [0.5])
    assert "loss" in steal.conditions
    assert "accuracy" not in steal.summary


def test_where_a_run_lies_is_no_condition(sweep: Path) -> None:
    words = ["trustml", "output_dir=here", "data_dir=there", "task.epsilon=0.0"]
    leave_run(sweep, 6, "0.0", 3, 0.6, command=words)
    assert read_runs(sweep)[6].overrides == {"data_dir": "there", "task.epsilon": "0.0"}


def test_a_headline_without_a_value_in_any_run_is_left_out_of_what_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, accuracy in enumerate([0.9, 0.8]):
        leave_run(tmp_path, number, "0.0", number, accuracy, headline="lowest_p_rule")
        path = tmp_path / f"job{number}" / "metrics.csv"
        pandas.read_csv(path).assign(lowest_p_rule=float("nan")).to_csv(path, index=False)
    tabulate(tmp_path, read_runs(tmp_path))
    assert pandas.read_csv(tmp_path / "summary.csv").accuracy.tolist() == [pytest.approx(0.85)]
    assert (tmp_path / "index.html").exists()
    assert not (tmp_path / "sweep.png").exists()
    assert capsys.readouterr().out == ""
