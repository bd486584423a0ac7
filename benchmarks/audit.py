"""`study=audit` against the same axes asked of one peer library each, with the same budgets, on digits.

`python -m benchmarks.audit AXIS FOLDER` asks one peer and prints what it found. Shifts, corruptions and signs of a
backdoor are left out: none of the libraries measures them for a PyTorch network. Ours also checks its numbers, draws
and writes its pages in this time.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softmax

from benchmarks.networks import cifar_cnn
from benchmarks.startup import Cost, measure
from trustml_cli.models.model import InputSpec, Normalization

INPUTS = InputSpec((1, 8, 8), 10, (0.0,), (1.0,))
TARGETS, QUERIES = 3, 1000  # of AutoAttack, as the audit has them; 100 steps are the default of both
Split = tuple[Tensor, Tensor]
Peer = Callable[[nn.Module, Split, Split], object]
PEERS: dict[str, tuple[str, Peer]] = {}


def peer(axis: str, library: str) -> Callable[[Peer], Peer]:
    """Enter a function under the axis that it answers."""

    def enter(ask: Peer) -> Peer:
        PEERS[axis] = library, ask
        return ask

    return enter


def network() -> nn.Module:
    """`cifar_cnn` for digits, normalised by nothing."""
    return cifar_cnn(INPUTS, Normalization.none)


def digits() -> tuple[Split, Split]:
    """Training and test images [N, 1, 8, 8] in [0, 1] and their labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    x_train, x_test = (torch.from_numpy(part).float().div(16).view(-1, 1, 8, 8) for part in parts[:2])
    y_train, y_test = (torch.from_numpy(part).long() for part in parts[2:])
    return (x_train, y_train), (x_test, y_test)


def trained(epochs: int) -> nn.Module:
    """The network that everybody is asked about."""
    torch.manual_seed(0)
    (x, y), _ = digits()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


@peer("accuracy", "torchmetrics")
def calibration(model: nn.Module, train: Split, test: Split) -> object:
    """Accuracy and calibration error."""
    from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

    probabilities = softmax(model(test[0]), 1)
    measures = MulticlassAccuracy(10, average="micro"), MulticlassCalibrationError(10, n_bins=15)
    return [measure(probabilities, test[1]).item() for measure in measures]


def auto_attack(model: nn.Module, test: Split, name: str, epsilon: float) -> object:
    """Accuracy on 200 images under all four attacks."""
    from pyautoattack import AutoAttack

    x, y = (part[:200] for part in test)
    attack = AutoAttack(model, norm=name, eps=epsilon, seed=0)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = TARGETS
    attack.square.n_queries = QUERIES
    x_adv = attack.run_standard_evaluation(x, y)[0]
    return (model(x_adv).argmax(1) == y).double().mean().item()


@peer("robustness_linf", "pyautoattack")
def in_linf(model: nn.Module, train: Split, test: Split) -> object:
    """With a budget in L∞."""
    return auto_attack(model, test, "Linf", 0.1)


@peer("robustness_l2", "pyautoattack")
def in_l2(model: nn.Module, train: Split, test: Split) -> object:
    """With a budget in L2."""
    return auto_attack(model, test, "L2", 0.5)


def of_art(model: nn.Module) -> Any:
    """The network, and an optimiser for what trains it, as ART wants them."""
    from art.estimators.classification import PyTorchClassifier

    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 8, 8), 10, optimizer=optimizer, clip_values=(0, 1), device_type="cpu"
    )


@peer("universal", "ART")
def universal(model: nn.Module, train: Split, test: Split) -> object:
    """The share of test images whose answer one change for all turns."""
    from art.attacks.evasion import UniversalPerturbation

    attack = UniversalPerturbation(of_art(model), "fgsm", {"eps": 0.1}, eps=0.1, max_iter=10, verbose=False)
    attack.generate(train[0][:1000].numpy())
    return (model(test[0] + torch.from_numpy(attack.noise)).argmax(1) != model(test[0]).argmax(1)).double().mean()


@peer("physical", "ART")
def patch(model: nn.Module, train: Split, test: Split) -> object:
    """The share of test images that a patch turns into class 0."""
    from art.attacks.evasion.adversarial_patch.adversarial_patch_pytorch import AdversarialPatchPyTorch

    x = train[0][train[1] != 0][:1000]
    passes = round(300 * 64 / len(x))  # as many gradients as our 300 batches of 64
    attack = AdversarialPatchPyTorch(
        of_art(model),
        scale_min=0.3,
        scale_max=0.4,
        learning_rate=0.05,
        max_iter=passes,
        batch_size=64,
        patch_shape=(1, 8, 8),
        verbose=False,
    )
    attack.generate(x.numpy(), one_hot(torch.zeros(len(x), dtype=torch.long), 10).numpy())
    others = test[0][test[1] != 0][:200].numpy()
    return (model(torch.from_numpy(attack.apply_patch(others, 0.35))).argmax(1) == 0).double().mean()


@peer("unseen", "pytorch-ood")
def unseen(model: nn.Module, train: Split, test: Split) -> object:
    """How well two scores tell test images from noise."""
    from pytorch_ood.detector import EnergyBased, MaxSoftmax
    from pytorch_ood.metrics import OODMetrics

    x = torch.cat([test[0], torch.rand(len(test[0]), 1, 8, 8)])
    labels = torch.cat([test[1], torch.full((len(test[0]),), -1)])
    found = []
    for detector in (MaxSoftmax(model), EnergyBased(model)):
        metrics = OODMetrics()
        metrics.update(detector(x), labels)
        found.append(metrics.compute())
    return found


@peer("memory", "ART")
def membership(model: nn.Module, train: Split, test: Split) -> object:
    """The shares of members and of others that are called members."""
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBox

    attack = MembershipInferenceBlackBox(of_art(model), input_type="loss", attack_model_type="lr")
    half = len(test[0]) // 2
    (x, y), (x_not, y_not) = ([part.numpy() for part in split] for split in (train, test))
    attack.fit(x[:half], y[:half], x_not[:half], y_not[:half])
    return [attack.infer(x[half:], y[half:]).mean(), attack.infer(x_not[half:], y_not[half:]).mean()]


@peer("extraction", "ART")
def extraction(model: nn.Module, train: Split, test: Split) -> object:
    """The answers that copies share, from 30, 100 and 300 queries."""
    from art.attacks.extraction import KnockoffNets

    victim = of_art(nn.Sequential(model, nn.Softmax(1)))
    found = []
    for queries in (30, 100, 300):
        student = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
        epochs = round(300 * 64 / queries)  # as many gradients as our 300 batches of 64
        attack = KnockoffNets(
            victim, batch_size_fit=64, batch_size_query=64, nb_epochs=epochs, nb_stolen=queries,
            use_probability=True, verbose=False,
        )  # fmt: skip
        stolen = attack.extract(train[0].numpy(), thieved_classifier=of_art(student))
        answers = torch.from_numpy(stolen.predict(test[0].numpy())).argmax(1)
        found.append((answers == model(test[0]).argmax(1)).double().mean().item())
    return found


@peer("explanations", "captum")
def explanations(model: nn.Module, train: Split, test: Split) -> object:
    """Confidence left on average while pixels are deleted, by their contribution and in a random order."""
    from captum.attr import IntegratedGradients

    x = test[0][:100]
    target = model(x).argmax(1)
    contributions = IntegratedGradients(model).attribute(x, target=target, n_steps=50)
    left = []
    for order in (contributions.flatten(1), torch.rand(len(x), 64)):  # captum deletes nothing; this is the least loop
        ranks = order.argsort(1, descending=True).argsort(1)
        for step in range(33):
            kept = (ranks >= 2 * step).view_as(x)
            left.append(softmax(model(x * kept), 1).gather(1, target[:, None]).mean())
    return torch.stack(left).view(2, -1).mean(1)


def ask(axis: str, folder: Path) -> None:
    """Ask one peer, and print what it found."""
    warnings.filterwarnings("ignore")
    model = network()
    model.load_state_dict(torch.load(folder / "network.pt"))
    train, test = digits()
    found = PEERS[axis][1](model.eval(), train, test)
    sys.stdout.write(f"{axis}: {found}\n")


def audit() -> list[Cost]:
    """Ours on all axes, and each peer on its own; every one a process of its own, run once."""
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        place = {**os.environ, "OMP_NUM_THREADS": "1", "TRUSTML_CACHE_DIR": f"{folder}/cache", "PYTHONPATH": str(root)}
        torch.save(trained(epochs=10).state_dict(), f"{folder}/network.pt")
        study = yaml.safe_load((root / "conf/study/audit.yaml").read_text(encoding="utf-8"))
        study["items"] = {name: item for name, item in study["items"].items() if name in PEERS}
        (Path(folder) / "mine/study").mkdir(parents=True)
        (Path(folder) / "mine/study/peers.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        model = ("model=cifar_cnn", "model.normalization=none", f"model.checkpoint={folder}/network.pt")
        ours = (sys.executable, "-m", "trustml_cli", "study", "peers", *model, "--config-dir", f"{folder}/mine")
        commands = {"ours, all axes": ours} | {
            f"{axis}: {library}": (sys.executable, "-m", "benchmarks.audit", axis, folder)
            for axis, (library, _) in PEERS.items()
        }
        return [Cost(what, *measure(command, folder, place), n=1) for what, command in commands.items()]


if __name__ == "__main__":
    ask(sys.argv[1], Path(sys.argv[2]))
