"""The real command line: every task in its smoke form, the run directory, and the ways a command may end."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
import yaml
from PIL import Image

from tests.configs import choices, columns
from tests.helpers import TIMES, Cli, facts, metrics, newest, runs
from trustml_cli.metrics.columns import PARTS
from trustml_cli.system.errors import InputError

SMALL = ["trainer=smoke", "dataset.test_fraction=0.12"]
FIRST = ["task", "dataset", "model", "seed"]
LONG = (
    "attack", "backdoor", "bnn", "calibrate", "corrupt", "credibility", "debias", "defensive_distillation",
    "detect_backdoor", "explain", "fooling", "forget", "inspect_backdoor", "membership", "pate", "physical", "rectify",
    "robust_train", "steal", "universal"
)  # fmt: skip
"""Tasks of more than a second, which tests/tasks and the sweep over all tasks run too."""
CHEAPER = {
    "invert": ["task.starts=2", "task.steps=40"],
    "overfit": ["task.degree=[1,3]", "task.width=[2,8]"],
}
"""What makes others shorter, in `make test` only."""
ROUNDING = 1e-12
WITHOUT_NETWORK = ("overfit",)  # tasks that train none, and have no history


@pytest.mark.parametrize("task", sorted(set(choices("task")) - set(LONG)))
def test_every_short_task_leaves_a_whole_run_directory(task: str, trustml: Cli, tmp_path: Path) -> None:
    words = [f"task={task}", *SMALL, *CHEAPER.get(task, [])]
    answer = trustml(*words)
    assert (answer.returncode, answer.stderr) == (0, "")  # no progress bars where nobody watches, and no warnings
    run = newest(tmp_path)
    assert run.parent == tmp_path / "outputs" / task
    assert facts(run)["command"] == ["trustml", *words]
    assert_whole(run, task)


@pytest.mark.faults
def test_a_sweep_over_every_task_ends_with_0_and_is_summed_up(
    trustml_process: Cli, trustml: Cli, tmp_path: Path
) -> None:
    """`make smoke` with fewer test images, by a real process: every picture is rendered."""
    answer = trustml_process("-m", *SMALL, f"task={','.join(choices('task'))}")
    assert (answer.returncode, answer.stderr) == (0, "")
    count = len(choices("task"))
    assert f"{count} of {count} jobs completed" in answer.stdout
    (sweep,) = tmp_path.glob("outputs/multirun/*")
    assert sorted(pandas.read_csv(sweep / "sweep.csv").task.unique()) == choices("task")
    assert "task=fgsm" in (sweep / "index.html").read_text()
    found = {facts(run)["task"]: run for run in runs(tmp_path)}
    for task, run in found.items():
        assert_whole(run, task)
        page = (run / "report.html").read_text(encoding="utf-8")
        plots = list((run / "plots").glob("*.png"))
        assert page.count("data:image/png;base64,") >= len(plots)  # a picture may be shown twice, none is left out
        for plot in plots:
            with Image.open(plot) as picture:
                assert sum(map(bool, picture.convert("L").histogram())) > 2, plot  # something is drawn

    alone = trustml("task=bnn", *SMALL)
    assert "training model" not in alone.stdout
    pandas.testing.assert_frame_equal(metrics(newest(tmp_path)), metrics(found["bnn"]))


def assert_whole(run: Path, task: str) -> None:
    """A run directory has all that the contract names, and what its task declares."""
    ended = facts(run)
    assert (ended["status"], ended["exit_code"]) == ("completed", 0)
    assert {"trustml", "libraries", "device", "started", "seconds", "peak_memory_mb"} <= ended.keys()
    assert {"config.yaml", "trustml.log", ".hydra"} <= {path.name for path in run.iterdir()}
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["epochs"] == 2

    table = metrics(run)
    assert list(table.columns[:4]) == FIRST
    values = [name for name in table.columns[4:] if not name.endswith(PARTS)]
    always = [column for column in columns(task) if column.always]
    for column in always:
        assert any(column.holds(name) for name in values), f"{column.name} is declared and missing"
    assert table[[name for name in values if any(column.holds(name) for column in always)]].notna().all().all()
    assert not table.duplicated().any()
    for name in [column.removesuffix("_ci_low") for column in table if column.endswith("_ci_low")]:
        known = table[table[f"{name}_ci_low"].notna()]
        assert len(known), name
        assert known[f"{name}_ci_low"].le(known[name] + ROUNDING).all(), name
        assert known[name].le(known[f"{name}_ci_high"] + ROUNDING).all(), name

    if task not in WITHOUT_NETWORK:
        assert ended["model_key"]
        history = pandas.read_csv(run / "history.csv")
        assert history.train_loss.notna().all()
        assert history.epoch.max() >= 2
    assert list((run / "plots").glob("*.png"))
    assert (run / "report.html").exists()


def test_the_same_command_twice_gives_the_same_metrics_and_trains_once(trustml: Cli, tmp_path: Path) -> None:
    command = ["task=fgsm", "model=mlp", "trainer=smoke", "seed=11", "task.epsilon=[0,0.1,0.3]"]
    first, second = trustml(*command), trustml(*command)
    assert "training model" in first.stdout
    assert "training model" not in second.stdout
    table, ended = first.stdout.splitlines()[-5:-1], first.stdout.splitlines()[-1]
    assert [line.split()[0] for line in table] == ["epsilon", "0", "0.1", "0.3"]
    assert re.fullmatch(r"after \d+ s, results are in (.*); page: \1/report\.html", ended)
    tables = [pandas.read_csv(run / "metrics.csv", dtype=str).drop(columns="seconds") for run in runs(tmp_path)]
    pandas.testing.assert_frame_equal(tables[0], tables[1])
    robust = tables[0].robust_accuracy.astype(float)
    assert robust[0] > robust[1] > robust[2]
    histories = [(run / "history.csv").read_text() for run in runs(tmp_path)]
    assert histories[0] == histories[1]


def test_training_again_from_nothing_gives_the_same_metrics(trustml: Cli, tmp_path: Path) -> None:
    for cache in ("one", "two"):
        answer = trustml("task=train", "trainer=smoke", env={"TRUSTML_CACHE_DIR": str(tmp_path / cache)})
        assert "training model" in answer.stdout
    tables = [
        pandas.read_csv(run / "metrics.csv", dtype=str).drop(columns=TIMES, errors="ignore") for run in runs(tmp_path)
    ]
    pandas.testing.assert_frame_equal(tables[0], tables[1])


def test_intervals_and_counts_stand_beside_every_proportion(trustml: Cli, tmp_path: Path) -> None:
    trustml("task=fgsm", "trainer=smoke", "task.epsilon=0.1", "attack.target=3")
    (run,) = runs(tmp_path)
    row = pandas.read_csv(run / "metrics.csv").iloc[0]
    for name in ("clean_accuracy", "robust_accuracy", "attack_success_rate"):
        assert row[f"{name}_ci_low"] <= row[name] <= row[f"{name}_ci_high"]
    assert row.clean_accuracy_n == row.robust_accuracy_n == 404  # 450 test digits less 46 threes
    assert row.attack_success_rate_n == round(row.clean_accuracy * 404)
    ended = facts(run)
    assert [check["passed"] for check in ended["checks"]][:5] == [True, True, None, True, True]
    assert len(ended["checks"]) == 15
    assert ended["verdict"] == "trustworthy" or ended["verdict"].startswith("not trustworthy: ")


def test_images_are_shown_to_other_models(trustml: Cli, tmp_path: Path) -> None:
    words = ["task=attack", "attack=mifgsm", "trainer=smoke", "task.epsilon=[0,0.3]", "task.check_images=0"]
    answer = trustml(*words, "model=mlp", "task.transfer_to=[logistic,mnist_bnn]")
    assert answer.stderr == ""
    (run,) = runs(tmp_path)
    table = pandas.read_csv(run / "metrics.csv")
    assert list(table.columns[4:8]) == ["attack", "norm", "epsilon", "scored_on"]
    assert list(table.scored_on) == ["mlp", "logistic", "mnist_bnn"] * 2
    before, after = table.robust_accuracy[:3].array, table.robust_accuracy[3:].array
    assert (table.robust_accuracy[:3] == table.clean_accuracy[:3]).all()
    assert before[0] - after[0] > 0.5
    assert before[1] - after[1] > 0.3  # what fools the one fools the other
    assert table.queries[3] == 10
    assert facts(run)["verdict"] == "not judged: compared with no other attack"
    assert {*pandas.read_csv(run / "history.csv").network} == {"mlp", "logistic", "mnist_bnn"}


def test_weights_that_cannot_be_had_end_with_2_and_say_where_to_put_them(trustml: Cli, tmp_path: Path) -> None:
    env = {"TORCH_HOME": str(tmp_path), "http_proxy": "http://localhost:1", "https_proxy": "http://localhost:1"}
    answer = trustml("model=resnet18", "model.weights=imagenet", env=env)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1, answer.stderr
    for word in ("model.weights", "resnet18-f37072fd.pth", str(tmp_path / "hub" / "checkpoints"), "model.weights=null"):
        assert word in answer.stderr


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_a_table_can_be_trained_on(model: str, trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=train", f"model={model}", "dataset=census", "trainer.epochs=3")
    assert answer.returncode == 0, answer.stderr
    (run,) = runs(tmp_path)
    row = pandas.read_csv(run / "metrics.csv").iloc[0]
    assert row.test_accuracy > 0.78  # of the test people, 77 % have no high income
    assert {path.stem for path in (run / "plots").iterdir()} == {"curves", "confusion"}


def test_a_loss_that_is_lost_ends_with_1_and_says_where_the_log_is(trustml: Cli, tmp_path: Path) -> None:
    answer = trustml("task=train", "trainer=smoke", "trainer.optimizer=sgd", "trainer.lr=1e30", "model=mlp")
    (run,) = runs(tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1
    assert "trainer.lr" in answer.stderr
    assert str(run / "trustml.log") in answer.stderr
    assert facts(run)["status"] == "failed"
    assert facts(run)["exit_code"] == 1


def test_full_error_has_python_print_the_traceback(trustml: Cli) -> None:
    with pytest.raises(InputError, match=r"task\.epsilon"):
        trustml("task=fgsm", "task.epsilon=-1", env={"HYDRA_FULL_ERROR": "1"})


@pytest.mark.faults
def test_an_interrupt_ends_with_130_and_run_json_says_so(tmp_path: Path, cache_dir: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "trustml_cli", "task=train", "trainer.epochs=100000", f"cache_dir={cache_dir}"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("history.csv")):  # there is a first epoch: it is training
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (run,) = runs(tmp_path)
    assert facts(run)["status"] == "running"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert facts(run)["status"] == "failed"
    assert facts(run)["error"] == "interrupted"


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_do_not_import_torch(flag: str) -> None:
    code = (
        f"import sys; sys.argv = ['trustml', {flag!r}]\n"
        "from trustml_cli.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    if flag == "--help":
        assert all(task in answer.stdout for task in choices("task"))


@pytest.mark.faults
def test_runs_that_start_at_once_have_directories_of_their_own(cache_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trustml_cli", "task=train", "trainer=smoke", "model=logistic", "seed=77"]
    environment = {**os.environ, "TRUSTML_CACHE_DIR": str(cache_dir)}
    processes = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(runs(tmp_path)) == 2
    assert sum("training model" in output for output in outputs) == 1  # the other waited and found it


def test_windows_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as end:
        runpy.run_module("trustml_cli.__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err == "trustml: error: runs on Linux and macOS; on Windows, run it in WSL\n"
