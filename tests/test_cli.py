"""The real command line: every task in its smoke form, the run directory, and the ways a command may end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from tests.configs import choices

Cli = Callable[..., subprocess.CompletedProcess[str]]

FIRST = ["task", "dataset", "model", "seed"]
TIMES = ["seconds", "images_per_second"]
COLUMNS = {
    "train": ["train_accuracy", "test_accuracy", "test_loss", "ece", "epochs", "seconds", "images_per_second"],
    "fgsm": [
        "attack", "norm", "epsilon", "clean_accuracy", "robust_accuracy", "attack_success_rate",
        "mean_l0", "mean_l2", "mean_linf", "mean_confidence", "seconds", "mean_l1", "queries", "gradients",
        "sure_success_rate",
    ],
    "ood": ["score", "threshold", "inlier_rate", "outlier_inlier_rate", "auroc", "aupr", "fpr_at_95_tpr"],
    "bnn": ["activation", "train_accuracy", "test_accuracy"],
    "steal": [
        "method", "queries", "victim_accuracy", "stolen_accuracy", "agreement", "max_parameter_error",
        "queries_used", "round_digits",
    ],
    "explain": ["explainer", "completeness_gap", "deletion_auc", "insertion_auc"],
    "backdoor": [
        "poison_rate", "clean_accuracy", "baseline_clean_accuracy",
        "attack_success_rate", "baseline_attack_success_rate",
    ],
    "backdoor_transfer": [
        "poison_rate", "clean_accuracy", "triggered_accuracy", "baseline_clean_accuracy",
        "baseline_triggered_accuracy", "donor_clean_accuracy", "donor_attack_success_rate",
    ],
    "debias": [
        "stage", "accuracy", "roc_auc",
        "p_rule_origin", "adversary_auc_origin", "demographic_parity_difference_origin",
        "equalized_odds_difference_origin",
        "p_rule_sex", "adversary_auc_sex", "demographic_parity_difference_sex", "equalized_odds_difference_sex",
    ],
}  # fmt: skip
COLUMNS["attack"] = COLUMNS["fgsm"]


def runs(folder: Path) -> list[Path]:
    return sorted((path.parent for path in folder.rglob("run.json")), key=lambda run: facts(run)["started"])


def facts(run: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / "run.json").read_text())
    return content


@pytest.mark.parametrize("task", choices("task"))
def test_every_task_leaves_a_whole_run_directory(task: str, trustml: Cli, tmp_path: Path) -> None:
    answer = trustml(f"task={task}", "trainer=smoke")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""  # no progress bars where nobody watches, and no warnings
    (run,) = runs(tmp_path)
    assert run.parent == tmp_path / "outputs" / task
    table = pandas.read_csv(run / "metrics.csv")
    assert list(table.columns[:4]) == FIRST
    assert [column for column in table.columns if column in COLUMNS[task]] == COLUMNS[task]
    assert not table.duplicated().any()
    empty = {"max_parameter_error", "round_digits"}  # networks have no parameters in common; nothing is rounded
    assert table[[column for column in COLUMNS[task] if column not in empty]].notna().all().all()
    assert {"history.csv", "config.yaml", "trustml.log", ".hydra"} <= {path.name for path in run.iterdir()}
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in (run / "plots").iterdir())
    ended = facts(run)
    assert ended["status"] == "completed"
    assert ended["command"] == ["trustml", f"task={task}", "trainer=smoke"]
    assert {"trustml", "libraries", "device", "started", "seconds", "peak_memory_mb", "model_key"} <= ended.keys()


def test_the_same_command_twice_gives_the_same_metrics_and_trains_once(trustml: Cli, tmp_path: Path) -> None:
    command = ["task=fgsm", "model=mlp", "trainer=smoke", "seed=11", "task.epsilon=[0,0.1,0.3]"]
    first, second = trustml(*command), trustml(*command)
    assert "training model" in first.stdout
    assert "training model" not in second.stdout
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
    tables = [pandas.read_csv(run / "metrics.csv", dtype=str).drop(columns=TIMES) for run in runs(tmp_path)]
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
    assert [check["passed"] for check in ended["checks"]][:4] == [True, None, True, True]
    assert len(ended["checks"]) == 11
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
    assert facts(run)["verdict"] == "not judged: held against no other attack"
    assert {*pandas.read_csv(run / "history.csv").stage} == {"mlp", "logistic", "mnist_bnn"}


TABLE = [
    "task=debias", "dataset=csv", "dataset.path=people.csv", "dataset.label=hired", "dataset.positive=yes",
    "dataset.sensitive=sex",
]  # fmt: skip
BAD_INPUT = [
    (["task=fgms"], ["task=fgms", "'fgsm'"]),
    (["model=cifar_cn"], ["model=cifar_cn", "'cifar_cnn'"]),
    (["dataset=mnst"], ["dataset=mnst", "'mnist'"]),
    (["experiment=cifar_rw"], ["experiment=cifar_rw", "'cifar_raw'"]),
    (["task=fgsm", "task.epsilonn=1"], ["task.epsilonn", "'epsilon'"]),
    (["trainer.learning_rate=1"], ["trainer.learning_rate", "there are epochs", " lr,"]),
    (["sed=1"], ["sed=1", "'seed'"]),
    (["+foo=1"], ["foo", "no such key"]),
    (["+trainer.foo=1"], ["trainer.foo", "no such key"]),
    (["attack=fgsm"], ["attack=fgsm", "task takes no attack"]),
    (["task=fgsm", "task.epsilon=-1"], ["task.epsilon", "at least 0", "-1"]),
    (["task=fgsm", "task.epsilon=abc"], ["task.epsilon", "number", "abc"]),
    (["task=fgsm", "task.epsilon=nan"], ["task.epsilon", "nan"]),
    (["task=fgsm", "task.epsilon=[]"], ["task.epsilon", "at least one"]),
    (["task=fgsm", "task.epsilon=[1"], ["task.epsilon=[1", "KEY=VALUE"]),
    (["task=fgsm", "attack.norm=l3"], ["attack.norm", "l3", "linf, l2"]),
    (["task=attack", "attack=pgdd"], ["attack=pgdd", "'pgd'"]),
    (["task=attack", "attack=rfgsm", "attack.norm=l1"], ["attack.norm", "linf, l2 for this attack", "l1"]),
    (["task=attack", "attack.steps=0"], ["attack.steps", "at least 1"]),
    (["task=attack", "attack.restarts=2", "attack.random_start=false"], ["attack.restarts", "random_start=true"]),
    (["task=attack", "attack=linear"], ["attack", "needs a linear model", "model=logistic"]),
    (["task=attack", "attack=deepfool", "attack.target=3"], ["attack.target", "must be null"]),
    (["task=attack", "attack=square", "attack.norm=l1"], ["attack.norm", "linf, l2 for this attack", "l1"]),
    (["task=attack", "attack=apgd_ce", "attack.loss=hinge"], ["attack.loss", "ce, dlr"]),
    (["task=attack", "attack=standard", "attack.area=0"], ["attack.area", "above 0"]),
    (["task=attack", "attack=cw", "attack.norm=linf"], ["attack.norm", "l2 for this attack", "linf"]),
    (["task=attack", "attack=noise", "attack.target=3"], ["attack.target", "aims at nothing"]),
    (["task=attack", "task.transfer_to=mlpp"], ["task.transfer_to=mlpp", "'mlp'"]),
    (["task=attack", "task.transfer_to=table_mlp", "model=logistic", "trainer=sklearn"], ["trainer", "logistic"]),
    (["task=attack", "task.transfer_to=cifar_cnn"], ["task.transfer_to", "cifar_cnn is what is attacked"]),
    (["task=attack", "task.check_images=-1"], ["task.check_images", "at least 0"]),
    (["task=attack", "rivals.iterative.steps=0"], ["rivals.iterative.steps", "at least 1"]),
    (["task=fgsm", "attack.target=cat"], ["attack.target", "cat", "0 to 9"]),
    (["task=backdoor", "task.target=1"], ["task.target", "'1' is a source too"]),
    (["task=backdoor", "task.source=[2,cat]"], ["task.source", "cat", "0 to 9"]),
    (["task=backdoor", "task.poison_rate=1.5"], ["task.poison_rate", "above 0 and at most 1", "1.5"]),
    (["task=backdoor", "task.poison_rate=0.001"], ["task.poison_rate", "136", "take at least 0.0074"]),
    (["task=backdoor", "trigger.size=9"], ["trigger.size", "9×9", "8×8"]),
    (["task=backdoor", "trigger.image=broken/train/cat/text.jpg"], ["trigger.image", "text.jpg", "as an image"]),
    (["task=backdoor", "trigger=pixel", "trigger.row=8"], ["trigger.row", "between -8 and 7", "8"]),
    (["task=backdoor", "model.checkpoint=other.pt"], ["model.checkpoint", "leave it null"]),
    (["task=backdoor_transfer", "task.new_classes=[3]"], ["task.new_classes", "at least two"]),
    (["task=backdoor_transfer", "model=logistic"], ["model", "deeper"]),
    (["trainer.epochs=0"], ["trainer.epochs", "at least 1"]),
    (["trainer=sklearn"], ["trainer", "model=logistic"]),
    (["device=cuda:7"], ["device", "cuda:7", "cpu"]),
    (["precision=fp64"], ["precision", "fp32, bf16, fp16"]),
    (["seed=-1"], ["seed", "at least 0"]),
    (["dataset=image_folder"], ["dataset.root", "needs a value"]),
    (["dataset=image_folder", "dataset.root=nowhere"], ["dataset.root", "nowhere", "ROOT/{train,test}/CLASS/"]),
    (["dataset=image_folder", "dataset.root=empty"], ["empty/train/cat", "no images"]),
    (["dataset=image_folder", "dataset.root=broken"], ["broken/train/cat/text.jpg", "image"]),
    (["dataset=cifar10", "data_dir=nothing"], ["CIFAR-10", "nothing", "cifar-10-batches-py", "TRUSTML_DATA_DIR"]),
    (["dataset=census"], ["model", "needs images", "rows of shape 13"]),
    (["task=debias", "model=cifar_cnn"], ["model", "needs images", "rows of shape 13"]),
    (["task=debias", "dataset=digits", "model=mlp"], ["dataset=digits", "sensitive columns", "census, adult or csv"]),
    (["task=debias", "task.lambda=[1,2,3]"], ["task.lambda", "one number or 2 (origin, sex)"]),
    (["task=debias", "task.lambda=-1"], ["task.lambda", "at least 0"]),
    (["task=debias", "task.lambda=much"], ["task.lambda", "number", "much"]),
    (["task=debias", "task.lamda=1"], ["task.lamda", "'lambda'"]),
    (["task=debias", "task.method=magic"], ["task.method", "adversarial, reweighing, thresholds"]),
    (["task=debias", "task.p_rule=200"], ["task.p_rule", "0 to 100"]),
    (["task=debias", "task.validation_fraction=0.9999"], ["task.validation_fraction", "no rows on one side"]),
    (["task=debias", "dataset.limit=4"], ["dataset.limit", "more rows"]),
    (["task=debias", "dataset=adult", "data_dir=nothing"], ["nothing/adult/adult.data", "TRUSTML_DATA_DIR"]),
    ([*TABLE, "dataset.path=absent.csv"], ["dataset.path", "absent.csv"]),
    ([*TABLE, "dataset.positive=maybe"], ["dataset.positive", "'maybe'", "no, yes"]),
    ([*TABLE, "dataset.sensitive=race"], ["dataset.sensitive", "'race'", "age, sex, planet, hired"]),
    ([*TABLE, "dataset.sensitive=[sex,planet]"], ["dataset.sensitive", "'planet'", "one value 'earth'"]),
    ([*TABLE, "dataset.sensitive=[sex,sex]"], ["'sex'", "named twice"]),
    ([*TABLE, "dataset.leave_out=[hired]"], ["'hired'", "named twice"]),
    ([*TABLE, "dataset.sensitive=[]"], ["dataset.sensitive", "at least one column"]),
    (["model.checkpoint=absent.pt"], ["model.checkpoint", "absent.pt"]),
    (["model.checkpoint=other.pt"], ["model.checkpoint", "other.pt", "another architecture"]),
    (["model.checkpoint=evil.pt"], ["model.checkpoint", "evil.pt", "run code"]),
    (["model=custom", "model.factory=nothing"], ["model.factory", "package.module:function"]),
    (["task=ood", "task.holdout=cat"], ["task.holdout", "cat", "0 to 9"]),
    (["task=ood", "task.holdout=10"], ["task.holdout", "10", "0 to 9"]),
    (["task=ood", "task.score=mspp"], ["task.score", "mspp", "'msp'"]),
    (["task=ood", "task.score=[]"], ["task.score", "msp, max_logit, energy, odin, mahalanobis, knn"]),
    (["task=ood", "task.quantile=1"], ["task.quantile", "between 0 and 1", "1"]),
    (["task=ood", "task.quantile=0"], ["task.quantile", "between 0 and 1", "0"]),
    (["task=ood", "task.validation_fraction=1.5"], ["task.validation_fraction", "between 0 and 1"]),
    (["task=ood", "task.validation_fraction=0.9999"], ["task.validation_fraction", "nothing to train on"]),
    (["task=ood", "dataset.limit=1"], ["task.holdout", "dataset.limit"]),
    (["task=ood", "task.ood_dataset=mnst"], ["task.ood_dataset=mnst", "'mnist'"]),
    (["task=ood", "task.ood_dataset=digits"], ["task.ood_dataset", "take another"]),
    (["task=ood", "task.ood_dataset=census"], ["task.ood_dataset", "images"]),
    (["task=ood", "dataset=census", "model=table_mlp"], ["dataset", "needs images"]),
    (["task=ood", "detector=mspp"], ["detector=mspp", "'msp'"]),
    (["task=ood", "detector.knn.k=0"], ["detector.knn.k", "at least 1"]),
    (["task=ood", "detector.knn.k=5000"], ["detector.knn.k", "at most 1090"]),
    (["task=bnn", "model=cifar_cnn"], ["model", "cifar_cnn", "mnist_cnn"]),
    (["task=bnn", "task.activation=tanh"], ["task.activation", "tanh", "relu, sign"]),
    (["task=bnn", "task.activation=[]"], ["task.activation", "relu, sign"]),
    (["task=bnn", "task.activation=relu", "task.binary_weights=true"], ["task.binary_weights", "add sign"]),
    (["task=bnn", "model.checkpoint=other.pt"], ["model.checkpoint", "leave it null"]),
    (["task=steal", "task.method=distil"], ["task.method", "'distill'"]),
    (["task=steal", "thief=distil"], ["thief=distil", "'distill'"]),
    (["task=steal", "model=mnist_cnn"], ["task.method", "linear_logits", "task.method=distill"]),
    (["task=steal", "task.queries=0"], ["task.queries", "at least 1"]),
    (["task=steal", "task.queries=[]"], ["task.queries", "at least one"]),
    (["task=steal", "thief.distill.source=held_out"], ["task.queries", "1000 held-out images", "there are 269"]),
    (["task=steal", "task.round_digits=-1"], ["task.round_digits", "at least 0"]),
    (["task=steal", "task.returns=labels"], ["task.method", "linear_logits needs logits", "task.returns=labels"]),
    (["task=steal", "task.returns=nothing"], ["task.returns", "logits, probabilities, labels"]),
    (["task=steal", "task.held_out=0.9999"], ["task.held_out", "nothing for the victim"]),
    (["task=steal", "task.held_out=1"], ["task.held_out", "between 0 and 1"]),
    (["task=steal", "thief.distill.lr=0"], ["thief.distill.lr", "above 0"]),
    (["task=steal", "student.checkpoint=other.pt"], ["student.checkpoint", "null"]),
    (["task=explain", "task.explainer=salience"], ["task.explainer", "'saliency'"]),
    (["task=explain", "task.explainer=linear"], ["task.explainer", "linear needs a linear model", "model=logistic"]),
    (["task=explain", "explainer=linear"], ["task.explainer", "none of linear", "cifar_cnn"]),
    (["task=explain", "task.images=451"], ["task.images", "at most 450"]),
    (["task=explain", "task.target=cat"], ["task.target", "cat", "0 to 9"]),
    (["task=explain", "task.steps=0"], ["task.steps", "at least 1"]),
    (["task=explain", "explainer.occlusion.window=9"], ["explainer.occlusion.window", "at most 8"]),
    (["tracker=mlflw"], ["tracker=mlflw", "'mlflow'"]),
    (["tracker.uri=x"], ["tracker.uri=x", "no such key"]),
    (["tracker=mlflow", "tracker.uri=nonsense://x"], ["tracker.uri", "nonsense://x"]),
    (["seed=${nope}"], ["nope", "not found"]),
    (["launcher=joblib"], ["launcher=joblib", "add -m"]),
    (["-m", "seed=0,1", "trainer.lrr=1"], ["trainer.lrr=1", "'lr'"]),
    (["-m", "seed=0,1", "launcher=joblib", "hydra.launcher.jobs=2"], ["hydra.launcher.jobs", "'n_jobs'"]),
    (["--no-such-flag"], ["--no-such-flag", "--help"]),
]


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the broken inputs that BAD_INPUT names."""
    import torch
    from PIL import Image

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("touch it_ran",)

    folder = tmp_path_factory.mktemp("bad")
    for root in ("empty", "broken"):
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                (folder / root / split / name).mkdir(parents=True)
                if root == "broken":
                    Image.new("RGB", (8, 8)).save(folder / root / split / name / "picture.png")
    (folder / "broken" / "train" / "cat" / "text.jpg").write_text("not an image")
    people = [f"{20 + row},{'fm'[row % 2]},earth,{'no' if row % 3 else 'yes'}" for row in range(60)]
    (folder / "people.csv").write_text("\n".join(["age,sex,planet,hired", *people]))
    torch.save({"weight": torch.zeros(2, 2)}, folder / "other.pt")
    torch.save({"weight": Evil()}, folder / "evil.pt")
    return folder


@pytest.mark.parametrize(("words", "expected"), BAD_INPUT, ids=[" ".join(words) for words, _ in BAD_INPUT])
def test_bad_input_ends_with_2_and_one_line_before_any_computing(
    words: list[str], expected: list[str], trustml_here: Cli, bad_files: Path, tmp_path: Path
) -> None:
    for path in bad_files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    answer = trustml_here(*words, env={"http_proxy": "http://localhost:1", "https_proxy": "http://localhost:1"})
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert "Traceback" not in answer.stderr + answer.stdout
    for word in expected:
        assert word in answer.stderr
    assert "training model" not in answer.stdout
    assert not (tmp_path / "it_ran").exists()
    assert all(facts(run)["status"] == "failed" and facts(run)["exit_code"] == 2 for run in runs(tmp_path))
    assert not list(tmp_path.glob("outputs/*/*/metrics.csv"))


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


def test_full_error_brings_the_traceback_back(trustml: Cli) -> None:
    answer = trustml("task=fgsm", "task.epsilon=-1", env={"HYDRA_FULL_ERROR": "1"})
    assert "Traceback" in answer.stderr


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
        "from trustml_cli.run import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    if flag == "--help":
        assert all(task in answer.stdout for task in choices("task"))


def test_runs_that_start_at_once_have_directories_of_their_own(cache_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trustml_cli", "task=train", "trainer=smoke", "model=logistic", "seed=77"]
    environment = {**os.environ, "TRUSTML_CACHE_DIR": str(cache_dir)}
    processes = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(runs(tmp_path)) == 3
    assert sum("training model" in output for output in outputs) == 1  # the others waited and found it
