"""Bad input, one table for all tasks: exit 2 and one line that names the key, before any computing."""

import json
import os
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.helpers import Cli

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
    (["trainer.learning_rate=1"], ["trainer.learning_rate", "it is called lr now"]),
    (["task=attack", "attack.reach=2"], ["attack.reach", "it is called rel_path_length now"]),
    (["task=attack", "rivals.iterative.steps=2"], ["rivals.iterative.steps", "it is called references now"]),
    (["task=attack", "attack=universal", "attack.images=2"], ["attack.images", "it is called training_images now"]),
    (["task=robust_train", "defence.images=2"], ["defence.images", "it is called monitor_images now"]),
    (["task=fooling", "task.deviation=0.1"], ["task.deviation", "it is called std now"]),
    (["task=rectify", "task.held_out=2"], ["task.held_out", "it is called folds now"]),
    (["trainer=sklearn", "model=logistic", "trainer.inverse_regularization=2"], ["trainer", "it is called C now"]),
    (["dataset=census", "model=table_mlp", "dataset.steps=2"], ["dataset.steps", "it is called bins now"]),
    (["sed=1"], ["sed=1", "'seed'"]),
    (["+trainer=smoke"], ["+trainer=smoke: there is one already", "write trainer=smoke"]),
    (["dataset.limit=1", "trainer.patience=1"], ["trainer.validation_fraction", "nothing to train on", "patience"]),
    (["trainer.patience=1", "trainer.validation_fraction=0.9999"], ["trainer.validation_fraction", "lower it"]),
    (["+foo=1"], ["foo", "no such key"]),
    (["+foo={}"], ["foo", "no such group", "there are dataset"]),
    (["+foo={bar: 1}"], ["foo", "no such group"]),
    (["+foo.bar={_target_: os.system}"], ["foo", "no such group"]),
    (["+attack=fgsm"], ["attack", "task=train takes no such group"]),
    (["+dataset@other=digits"], ["other", "no such group"]),
    (["task=rectify", "~attack@attacks.pgd"], ["attacks.pgd", "no _target_"]),
    (["train"], ["train: no such command", "did you mean task=train?", "KEY=VALUE"]),
    (["cifar_cnn"], ["did you mean model=cifar_cnn?"]),
    (["epochs=3"], ["epochs=3: no such key", "did you mean trainer.epochs?"]),
    (["-m", "task=fgsm", "seed=0,1", "task.epsilonn=1", "--cfg", "job"], ["task.epsilonn", "'epsilon'"]),
    (["-m", "model=glob(zzz*)", "--cfg", "job"], ["model=glob(zzz*)", "stands for no value"]),
    (["rnus"], ["rnus", "did you mean 'runs'", "KEY=VALUE"]),
    (["-m", "seed=0,1,0"], ["seed=0,1,0", "0 twice"]),
    (["-m", "task=fgsm", "seed=0,1", "task.epsilonn=1"], ["task.epsilonn", "'epsilon'"]),
    (["+trainer.foo=1"], ["trainer.foo", "no such key"]),
    (["attack=fgsm"], ["attack=fgsm", "task takes no attack"]),
    (["task=fgsm", "task.epsilon=-1"], ["task.epsilon", "at least 0", "-1"]),
    (["task=fgsm", "task.epsilon=abc"], ["task.epsilon", "number", "abc"]),
    (["task=fgsm", "task.epsilon=nan"], ["task.epsilon", "nan"]),
    (["task=fgsm", "task.epsilon=[]"], ["task.epsilon", "at least one"]),
    (["task=fgsm", "task.epsilon=8/0"], ["task.epsilon", "8/0 divides by zero"]),
    (["task=fgsm", "task.epsilon=8/255/2"], ["task.epsilon", "number", "8/255/2"]),
    (["eps=0.1"], ["task.epsilon=0.1", "no such key", "eps is read as task.epsilon"]),
    (["task=fgsm", "eps=1", "task.epsilon=2"], ["eps: is read as task.epsilon", "leave one out"]),
    (["task=fgsm", "task.epsilon=0,1"], ["'task.epsilon=[0,1]' is a list", "'task.epsilon=\"0,1\"' a text", "-m"]),
    (["task=fooling", "task.target=true"], ["task.target", "whole number or text, got true", "'task.target=\"true\"'"]),
    (["task=backdoor", "task.source=[1,1.5]"], ["task.source", "got 1.5", "'task.source=[\"1.5\"]'"]),
    (["-m", "model=glob(zzz*)"], ["model=glob(zzz*)", "stands for no value"]),
    (["-m", "model=glob(log*)", "trainer.lrr=1"], ["trainer.lrr=1", "'lr'"]),
    (["-m", "trainer.lr=interval(0,1)"], ["trainer.lr=interval(0,1)", "range(START,STOP,STEP)"]),
    (["task=ood", "task.ood_dataset=mnist", "outliers.mnist.limt=1"], ["outliers.mnist.limt=1", "'limit'"]),
    (["task=ood", "task.ood_dataset=mnst", "outliers.mnst.limit=1"], ["task.ood_dataset=mnst", "'mnist'"]),
    (["cache_dir="], ["cache_dir", "is empty; give a path"]),
    (["resume"], ["DIR", "trustml resume --help"]),
    (["resume", "nowhere"], ["resume: nowhere is no sweep's directory"]),
    (["task=fgsm", "task.epsilon=[1"], ["task.epsilon=[1", "KEY=VALUE"]),
    (["task=fgsm", "attack.norm=l3"], ["attack.norm", "l3", "linf, l2"]),
    (["task=attack", "attack=pgdd"], ["attack=pgdd", "'pgd'"]),
    (["task=attack", "attack=rfgsm", "attack.norm=l1"], ["attack.norm", "linf, l2 for this attack", "l1"]),
    (["task=attack", "attack.steps=0"], ["attack.steps", "at least 1"]),
    (["task=attack", "attack.restarts=2", "attack.random_start=false"], ["attack.restarts", "random_start=true"]),
    (["task=attack", "attack=linear"], ["attack", "needs a linear model", "model=logistic"]),
    (["task=fgsm", "task.save=5"], ["task.save", "all, or at least task.examples (6), got 5"]),
    (["task=fgsm", "task.save=some"], ["task.save", "all, or at least", "some"]),
    (["task._target_=trustml_cli.tasks.train.Trian"], ["task._target_", "cannot find trustml_cli.tasks.train.Trian"]),
    (["task=fgsm", "task.images=0"], ["task.images", "at least 1"]),
    (["task=fgsm", "defence=pgdd"], ["defence=pgdd", "'pgd'"]),
    (["task=bnn", "defence=pgd"], ["defence=pgd", "task takes no defence"]),
    (["task=train", "dataset=census", "model=mlp", "defence=pgd"], ["defence", "needs images", "defence=none"]),
    (["task=train", "model=logistic", "trainer=sklearn", "defence=pgd"], ["defence", "trainer=default"]),
    (["task=explain", "defence=free", "defence.norm=l2"], ["defence.norm", "linf for this defence"]),
    (["task=robust_train", "defence=none"], ["defence", "another than none"]),
    (["task=robust_train", "defence=none", "task.epsilon=0.1"], ["defence", "another than none"]),
    (["task=robust_train", "defence=rectify"], ["defence", "task=attack for rectify"]),
    (["task=rectify", "defence=pgd"], ["defence", "for rectify", "task=robust_train"]),
    (["task=rectify", "defence=none"], ["defence", "for rectify"]),
    (["task=rectify", "defence.norm=l1"], ["defence.norm", "linf, l2 here", "l1"]),
    (["task=rectify", "defence.fidelity=-1"], ["defence.fidelity", "at least 0", "-1"]),
    (["task=rectify", "task.epsilon=-1"], ["task.epsilon", "at least 0", "-1"]),
    (["task=rectify", "task.quantile=1"], ["task.quantile", "above 0 and below 1"]),
    (["task=rectify", "task.C=0"], ["task.C", "above 0"]),
    (["task=rectify", "attacks.universal.target=cat"], ["attacks.universal.target", "cat", "0 to 9"]),
    (["task=rectify", "dataset=census", "model=table_mlp"], ["defence", "needs images"]),
    (["task=robust_train", "model=logistic", "trainer=sklearn"], ["defence", "trainer=default"]),
    (["task=robust_train", "defence.epsilon=0"], ["defence.epsilon", "above 0"]),
    (["task=robust_train", "defence=ensemble", "defence.static=0"], ["defence.static", "at least 1", "defence=fgsm"]),
    (["task=attack", "attack=deepfool", "attack.target=3"], ["attack.target", "must be null"]),
    (["task=attack", "attack=square", "attack.norm=l0"], ["attack.norm", "linf, l2, l1 for this attack", "l0"]),
    (["task=attack", "attack=apgd_ce", "attack.loss=hinge"], ["attack.loss", "margin, dlr"]),
    (["task=attack", "attack=standard", "attack.area=0"], ["attack.area", "above 0"]),
    (["task=attack", "attack=cw", "attack.norm=l1"], ["attack.norm", "l2, linf, l0 for this attack", "l1"]),
    (["task=attack", "attack=noise", "attack.target=3"], ["attack.target", "noise has no target"]),
    (["task=attack", "task.transfer_to=mlpp"], ["task.transfer_to=mlpp", "'mlp'"]),
    (["task=attack", "task.transfer_to=table_mlp", "model=logistic", "trainer=sklearn"], ["trainer", "logistic"]),
    (["task=attack", "task.transfer_to=cifar_cnn"], ["task.transfer_to", "cifar_cnn is under attack"]),
    (["task=attack", "task.check_images=-1"], ["task.check_images", "at least 0"]),
    (["task=attack", "references.iterative.steps=0"], ["references.iterative.steps", "at least 1"]),
    (["task=fgsm", "attack.target=cat"], ["attack.target", "cat", "0 to 9"]),
    (["task=attack", "attack=universal", "attack.delta=1"], ["attack.delta", "below 1"]),
    (["task=attack", "attack=substitute", "attack.labels=10"], ["attack.labels", "at least training_images (2400)"]),
    (["task=fooling", "task.target=cat"], ["task.target", "cat", "0 to 9"]),
    (["task=fooling", "task.std=-1"], ["task.std", "at least 0", "-1"]),
    (["task=fooling", "task.confidence=2"], ["task.confidence", "between 0 and 1", "2"]),
    (["task=fooling", "methods.many_steps.steps=0"], ["methods.many_steps.steps", "at least 1"]),
    *(
        (["task=" + task, "dataset=census", "model=table_mlp"], ["dataset", "images"])
        for task in ("fgsm", "universal", "fooling")
    ),
    (["task=physical", "physical.target=cat"], ["physical.target", "cat", "0 to 9"]),
    (["task=physical", "physical.area=0.9"], ["physical.area", "at most 0.5", "0.9"]),
    (["task=physical", "physical.rotation=-1"], ["physical.rotation", "between 0 and 180", "-1"]),
    (
        ["task=physical", "physical=sticker", "physical.mask=nowhere.png"],
        ["physical.mask", "nowhere.png", "no such file"],
    ),
    (["task=physical", "task.images=0"], ["task.images", "at least 1"]),
    (["task=physical", "dataset=census", "model=table_mlp"], ["dataset", "images"]),
    (["task=universal", "attack=pgd"], ["attack", "use universal_search"]),
    (["task=universal", "task.epsilon=-1"], ["task.epsilon", "at least 0", "-1"]),
    (["task=universal", "task.models=mlpp"], ["task.models=mlpp", "'mlp'"]),
    (["task=universal", "attack.target=cat"], ["attack.target", "cat", "0 to 9"]),
    (["task=backdoor", "task.target=1"], ["task.target", "'1' is a source too"]),
    (["task=backdoor", "task.source=[2,cat]"], ["task.source", "cat", "0 to 9"]),
    (["task=backdoor", "task.poison_rate=1.5"], ["task.poison_rate", "above 0 and at most 1", "1.5"]),
    (["task=backdoor", "task.poison_rate=0.001"], ["task.poison_rate", "136", "use at least 0.0074"]),
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
    (["task=debias", "task.p_rule=200"], ["task.p_rule", "between 0 and 100"]),
    (["task=debias", "task.validation_fraction=0.9999"], ["task.validation_fraction", "no rows on one side"]),
    (["task=debias", "dataset.limit=4"], ["dataset.limit", "more rows"]),
    (["task=debias", "dataset=adult", "data_dir=nothing"], ["nothing/adult/adult.data", "TRUSTML_DATA_DIR"]),
    ([*TABLE, "dataset.path=absent.csv"], ["dataset.path", "absent.csv"]),
    ([*TABLE, "dataset.positive=maybe"], ["dataset.positive", "'maybe'", "no, yes"]),
    ([*TABLE, "dataset.sensitive=race"], ["dataset.sensitive", "'race'", "age, sex, planet, hired"]),
    ([*TABLE, "dataset.sensitive=[sex,planet]"], ["dataset.sensitive", "'planet'", "one value 'earth'"]),
    ([*TABLE, "dataset.sensitive=[sex,sex]"], ["'sex'", "named twice"]),
    ([*TABLE, "dataset.drop=[hired]"], ["'hired'", "named twice"]),
    ([*TABLE, "dataset.sensitive=[]"], ["dataset.sensitive", "at least one column"]),
    (["model.checkpoint=absent.pt"], ["model.checkpoint", "absent.pt"]),
    (["model.checkpoint=other.pt"], ["model.checkpoint", "other.pt", "another architecture"]),
    (["model.checkpoint=evil.pt"], ["model.checkpoint", "evil.pt", "run code"]),
    (["model=custom", "model.factory=nothing"], ["model.factory", "package.module:function"]),
    (["task=ood", "task.holdout=cat"], ["task.holdout", "cat", "0 to 9"]),
    (["task=ood", "task.holdout=10"], ["task.holdout", "10", "0 to 9"]),
    (["task=ood", "task.score=mspp"], ["task.score", "mspp", "'msp'"]),
    (["task=ood", "task.score=[]"], ["task.score", "msp, max_logit, energy, odin, mahalanobis, knn"]),
    (
        ["task=ood", "task.score=vim", "model=mnist_bnn", "model.binary_weights=true"],
        ["task.score: vim", "needs logits that are the output of"],
    ),
    (["task=ood", "task.ood_dataset=noise", "outliers.noise.images=1"], ["outliers.noise.images", "at least 2"]),
    (["task=ood", "task.quantile=1"], ["task.quantile", "above 0 and below 1", "1"]),
    (["task=ood", "task.quantile=0"], ["task.quantile", "above 0 and below 1", "0"]),
    (["task=ood", "task.validation_fraction=1.5"], ["task.validation_fraction", "above 0 and below 1"]),
    (["task=ood", "task.validation_fraction=0.9999"], ["task.validation_fraction", "nothing to train on"]),
    (["task=ood", "dataset.limit=1"], ["task.holdout", "dataset.limit"]),
    (["task=ood", "task.ood_dataset=mnst"], ["task.ood_dataset=mnst", "'mnist'"]),
    (["task=ood", "task.ood_dataset=digits"], ["task.ood_dataset", "choose another"]),
    (["task=ood", "task.ood_dataset=census"], ["task.ood_dataset", "images"]),
    (["task=ood", "dataset=census", "model=table_mlp"], ["dataset", "needs images"]),
    (["task=ood", "detector=mspp"], ["detector=mspp", "'msp'"]),
    (["task=ood", "detector.knn.k=0"], ["detector.knn.k", "at least 1"]),
    (["task=ood", "detector.knn.k=5000"], ["detector.knn.k", "at most 1090"]),
    (["task=bnn", "model=cifar_cnn"], ["model", "cifar_cnn", "mnist_cnn"]),
    (["task=bnn", "task.activation=tanh"], ["task.activation", "tanh", "relu, sign"]),
    (["task=bnn", "task.activation=[]"], ["task.activation", "relu, sign"]),
    (["task=bnn", "task.activation=relu", "task.binary_weights=true"], ["task.binary_weights", "add sign"]),
    (["task=bnn", "task.export=packed"], ["task.export", "task.binary_weights=true"]),
    (["task=bnn", "task.export=bits"], ["task.export", "bits", "packed"]),
    (["task=bnn", "model.checkpoint=other.pt"], ["model.checkpoint", "leave it null"]),
    (["task=steal", "task.method=distil"], ["task.method", "'distill'"]),
    (["task=steal", "thief=distil"], ["thief=distil", "'distill'"]),
    (
        ["task=steal", "model=mnist_cnn", "task.method=linear_logits"],
        ["task.method", "linear_logits", "task.method=distill"],
    ),
    (["task=steal", "task.queries=0"], ["task.queries", "at least 1"]),
    (["task=steal", "task.queries=[]"], ["task.queries", "at least one"]),
    (["task=steal", "task.round_digits=-1"], ["task.round_digits", "at least 0"]),
    (
        ["task=steal", "task.returns=labels", "task.method=linear_logits"],
        ["task.method", "linear_logits needs logits", "task.returns=labels"],
    ),
    (["task=steal", "task.returns=nothing"], ["task.returns", "logits, probabilities, labels"]),
    (["task=steal", "task.held_out=0.9999"], ["task.held_out", "nothing for the victim"]),
    (["task=steal", "task.held_out=1"], ["task.held_out", "above 0 and below 1"]),
    (["task=steal", "thief.distill.lr=0"], ["thief.distill.lr", "above 0"]),
    (["task=steal", "student.checkpoint=other.pt"], ["student.checkpoint=other.pt", "add model@student=NAME"]),
    (["task=steal", "model@student=mlp", "student.checkpoint=other.pt"], ["student.checkpoint", "must be null"]),
    (["task=credibility", "detector=[dknn,msp]"], ["detector: dknn", "rivals"]),
    (["task=credibility", "attack=noise"], ["task.ood_dataset", "noise is the name of other images"]),
    (["task=credibility", "attack.norm=l2"], ["attack.norm", "linf"]),
    (["task=credibility", "task.calibration=1000"], ["task.calibration", "at most 673"]),
    (["task=credibility", "task.layers=[conv9]"], ["task.layers", "'conv9'", "network.0"]),
    (["task=credibility", "task.k=2000"], ["task.k", "at most 1097"]),
    (
        ["task=credibility", "detector=vim", "model=mnist_bnn", "model.binary_weights=true"],
        ["detector.vim", "last linear"],
    ),
    (["task=explain", "task.explainer=salience"], ["task.explainer", "'saliency'"]),
    (["task=explain", "task.explainer=linear"], ["task.explainer", "linear needs a linear model", "model=logistic"]),
    (["task=explain", "explainer=linear"], ["task.explainer", "none of linear", "cifar_cnn"]),
    (["task=explain", "task.target=cat"], ["task.target", "cat", "0 to 9"]),
    (["task=explain", "explainer.grad_cam.layer=conv9"], ["explainer.grad_cam.layer", "'conv9'", "network.0"]),
    (["task=explain", "task.steps=0"], ["task.steps", "at least 1"]),
    (["task=explain", "explainer.occlusion.window=9"], ["explainer.occlusion.window", "at most 8"]),
    (["tracker=mlflw"], ["tracker=mlflw", "'mlflow'"]),
    (["tracker.uri=x"], ["tracker.uri=x", "tracker=csv has no keys", "trustml show tracker"]),
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


RANGES = ("at least", "at most", "above", "below", "between")
SLOW = {"task=credibility", "task=debias", "task=ood", "task=universal"}  # which read data or build networks first


def row(words: list[str], expected: list[str]) -> ParameterSet:
    """A row of the table; slow tasks, and ranges, which `require` checks for all, are left to the long tests."""
    of_range = any(word.startswith(RANGES) for word in expected) and not words[-1].startswith("task.epsilon=")
    long = of_range or not SLOW.isdisjoint(words)
    return pytest.param(words, expected, id=" ".join(words), marks=[pytest.mark.faults] if long else [])


@pytest.mark.parametrize(("words", "expected"), [row(*one) for one in BAD_INPUT])
def test_bad_input_ends_with_2_and_one_line_before_any_computing(
    words: list[str], expected: list[str], trustml: Cli, bad_files: Path, tmp_path: Path
) -> None:
    for path in bad_files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    answer = trustml(*words, env={"http_proxy": "http://localhost:1", "https_proxy": "http://localhost:1"})
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert "Traceback" not in answer.stderr + answer.stdout
    for word in expected:
        assert word in answer.stderr
    assert "training model" not in answer.stdout
    assert not (tmp_path / "it_ran").exists()
    ended = [json.loads(file.read_text()) for file in tmp_path.rglob("run.json")]
    assert all((facts["status"], facts["exit_code"]) == ("failed", 2) for facts in ended)
    assert not list(tmp_path.glob("outputs/*/*/metrics.csv"))
