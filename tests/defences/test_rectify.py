"""The rectifying network and its detector: what they learn from, what they leave alone, and what they bring."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.configs import choice
from tests.helpers import CPU
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.measure import sizes, within_budget
from trustml_cli.attacks.universal_base import answers
from trustml_cli.config.instantiate import build
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset
from trustml_cli.defences.detector import PerturbationDetector, features
from trustml_cli.defences.measure import RectifiedResult, ask_rectified, concatenate
from trustml_cli.defences.rectify import Rectifier, RectifyingNetwork, perturbed
from trustml_cli.ood.separation import separation
from trustml_cli.system.hardware import seeded
from trustml_cli.training.gradient import GradientTrainer
from trustml_cli.training.inputs import input_spec

DETECTOR = PerturbationDetector(C=0.01)


def rectify(**changes: object) -> Rectifier:
    built = build(choice("defence", "rectify", **changes), "defence")
    assert isinstance(built, Rectifier)
    return built


class Trained:
    """A small classifier of digits and the rectifier in front of it; the images that both learnt from, and others."""

    def __init__(self, data: Dataset) -> None:
        trainer: GradientTrainer = build(choice("trainer", "default", epochs=4), "trainer")
        self.defence = rectify(perturbations=4, blocks=2)
        with seeded(0):
            self.classifier = build(choice("model", "mlp"), "model").build(input_spec(data))
            trainer.fit(self.classifier, data, CPU, lambda _: None)
            self.classifier.eval().requires_grad_(False)
            self.weights = {name: value.clone() for name, value in self.classifier.state_dict().items()}
            self.own, self.own_y = next(batches(data.train, 1200, CPU.device))
            self.x, self.y = next(batches(data.test, 450, CPU.device))
            self.guarded = self.defence.around(self.classifier, data.shape)
            self.epochs = list(self.defence.learn(self.guarded[0], self.classifier, self.own, self.own_y))
        self.seen = answers(self.classifier, self.x)

    def unseen(self) -> Tensor:
        """The test images with a perturbation that was learnt from another seed."""
        with seeded(99):
            return (self.x + self.defence.learner(None).learn(self.classifier, self.own, 0.2)).clamp(0, 1)


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> Trained:
    return Trained(digits)


def agreement(network: nn.Module, images: Tensor, seen: Tensor) -> float:
    return (answers(network, images) == seen).double().mean().item()


@pytest.mark.faults
@pytest.mark.e2e
def test_what_an_unseen_perturbation_takes_the_rectifier_brings_back(trained: Trained) -> None:
    x_adv = trained.unseen()
    bare = agreement(trained.classifier, x_adv, trained.seen)
    assert bare < 0.6
    assert agreement(trained.guarded, x_adv, trained.seen) > bare + 0.25
    assert agreement(trained.guarded, trained.x, trained.seen) > 0.95
    assert trained.epochs[-1][1] < trained.epochs[0][1], "the loss falls"
    assert len(trained.epochs) == 10


@pytest.mark.e2e
def test_the_classifier_stays_as_it_is(trained: Trained) -> None:
    after = trained.classifier.state_dict()
    assert all(torch.equal(after[name], value) for name, value in trained.weights.items())
    assert not any(layer.training for part in trained.guarded for layer in part.modules())


@pytest.mark.e2e
def test_the_detector_flags_perturbations_that_it_has_not_seen(trained: Trained) -> None:
    front = trained.guarded[0]
    assert isinstance(front, RectifyingNetwork)
    torch.manual_seed(0)
    noisy = perturbed(trained.own, front.perturbations, 0.2, Norm.linf)
    with torch.no_grad():
        changes = [front(images) - images for images in (trained.own, noisy, trained.x, trained.unseen())]
    machine = DETECTOR.fit(changes[0], changes[1])
    assert separation(machine.score(changes[2]), machine.score(changes[3])).auroc > 0.9


@pytest.mark.e2e
def test_perturbations_are_learnt_for_no_class_and_then_one_after_the_other(trained: Trained) -> None:
    front, x = trained.guarded[0], trained.own
    assert isinstance(front, RectifyingNetwork)
    learnt = front.perturbations
    assert len(learnt) == 4
    assert (learnt.abs() <= 0.2 + 1e-6).all()
    before = answers(trained.classifier, x)
    assert agreement(trained.classifier, (x + learnt[0]).clamp(0, 1), before) < 0.7
    for goal, v in enumerate(learnt[1:]):
        taken = (answers(trained.classifier, (x + v).clamp(0, 1)) == goal).double().mean()
        assert taken > (before == goal).double().mean() + 0.08


@pytest.mark.parametrize(("norm", "epsilon"), [(Norm.linf, 0.1), (Norm.l2, 0.7)])
def test_half_of_the_images_carry_learnt_perturbations_and_all_keep_the_budget(norm: Norm, epsilon: float) -> None:
    torch.manual_seed(0)
    grey = torch.full((400, 3, 5, 5), 0.5)
    learnt = torch.randn(3, 3, 5, 5)
    learnt *= (epsilon / sizes(learnt)[norm]).view(-1, 1, 1, 1)
    shown = perturbed(grey, learnt, epsilon, norm)
    change = shown - grey
    assert within_budget(shown, grey, epsilon, norm)
    assert torch.allclose(sizes(change)[norm], torch.tensor(epsilon), rtol=1e-4)
    as_learnt = (change[:, None] - learnt).abs().flatten(2).amax(2).amin(1) < 1e-6
    assert as_learnt.double().mean().item() == pytest.approx(0.5, abs=0.1)
    if norm is Norm.l2:  # in L∞ the edge is reached by signs
        basis = torch.linalg.qr(learnt.flatten(1).T).Q
        synthetic = change[~as_learnt].flatten(1)
        assert torch.allclose(synthetic @ basis @ basis.T, synthetic, atol=1e-5), "a sum of learnt ones"


def test_without_fidelity_the_loss_is_the_classifiers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, network = torch.rand(32, 1, 4, 4), nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
    own_answers = nn.functional.cross_entropy(network(x), answers(network, x)).item()
    losses = {}
    for fidelity in (0.0, 50.0):
        defence = rectify(perturbations=1, epsilon=1e-6, epochs=1, batch_size=32, fidelity=fidelity, lr=1e-9)
        guarded = defence.around(network, (1, 4, 4))
        nn.init.zeros_(guarded[0].residual[-1].weight)
        nn.init.constant_(guarded[0].residual[-1].bias, 0.1)  # every pixel is changed by 0.1
        ((_, losses[fidelity], _),) = defence.learn(guarded[0], network, x, torch.zeros(32))
        shifted = nn.functional.cross_entropy(network(x + 0.1), answers(network, x)).item()
        assert losses[fidelity] == pytest.approx(shifted + fidelity * 0.01, rel=1e-4)
    assert own_answers != pytest.approx(shifted, rel=1e-3)


def test_features_are_those_of_a_cosine_transform_worked_out_by_hand() -> None:
    rows, columns = np.meshgrid(np.arange(4), np.arange(6), indexing="ij")
    wave = np.cos(np.pi * (rows + 0.5) * 2 / 4) * np.cos(np.pi * (columns + 0.5) * 3 / 6)
    found = features(torch.tensor(wave)[None, None]).reshape(4, 6)
    # orthonormal: each basis function has the length √(4/2)·√(6/2) before it is scaled to 1
    assert found[2, 3] == pytest.approx(np.log(np.sqrt(6) + 0.01))
    found[2, 3] = np.log(0.01)
    assert found == pytest.approx(np.log(0.01))


def test_flagged_images_are_rectified_and_the_others_go_straight() -> None:
    numbers = {name: torch.tensor(value) for name, value in {
        "labels": [0, 0, 0], "before": [0, 0, 0], "bare": [1, 1, 1], "rectified": [2, 2, 2],
        "score": [0.1, 0.5, 0.9], "likeness": [0.0, 0.0, 0.0],
    }.items()}  # fmt: skip
    shown = RectifiedResult(**numbers, examples=torch.zeros(3, 1, 2, 2))
    assert shown.combined(0.5).tolist() == [1, 1, 2]
    assert concatenate([shown, shown]).combined(0.0).tolist() == [2] * 6


@pytest.mark.e2e
def test_likeness_is_the_largest_cosine_with_what_was_learnt_from(trained: Trained) -> None:
    front = trained.guarded[0]
    assert isinstance(front, RectifyingNetwork)
    machine = DETECTOR.fit(torch.rand(9, 1, 8, 8), torch.rand(9, 1, 8, 8))
    grey = torch.full((5, 1, 8, 8), 0.5)
    opposite = grey - 0.3 * front.perturbations[1]
    shown = ask_rectified(trained.guarded, machine, grey, torch.cat([opposite[:1], grey[1:]]), torch.zeros(5).long())
    assert shown.likeness.tolist() == pytest.approx([1.0, 0, 0, 0, 0], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm": "l1"}, "norm: must be one of linf, l2"),
        ({"epsilon": 0.0}, "epsilon: must be above 0"),
        ({"lr": -1.0}, "lr: must be above 0"),
        ({"perturbations": 0}, "perturbations: must be at least 1"),
        ({"width": 0}, "width: must be at least 1"),
        ({"fidelity": -1.0}, "fidelity: must be at least 0"),
    ],
)
def test_values_out_of_range_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(Exception, match=words):
        rectify(**changes)
