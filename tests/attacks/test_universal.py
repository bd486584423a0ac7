"""One perturbation for all images: the same for each, within its budget, and far better than noise."""

from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tests.configs import choice
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.comparison import with_more_effort
from trustml_cli.attacks.geometry import onto_ball
from trustml_cli.attacks.measure import sizes
from trustml_cli.attacks.universal import Universal
from trustml_cli.attacks.universal_base import FittedUniversal, UniversalAttack, answers, fooled
from trustml_cli.attacks.universal_gradient import UniversalGradient
from trustml_cli.attacks.universal_singular import UniversalSingular
from trustml_cli.config.instantiate import build
from trustml_cli.system.hardware import seeded

NAMES = ["universal", "universal_gradient", "universal_search", "universal_singular"]
QUICK: dict[str, dict[str, Any]] = {
    "universal": {"training_images": 100, "epochs": 3},
    "universal_gradient": {"training_images": 300},
    "universal_search": {"training_images": 200, "epochs": 5, "restarts": 1},
    "universal_singular": {},
}
Digits = tuple[nn.Module, Tensor, Tensor]


def learner(name: str, **changes: Any) -> UniversalAttack:
    built: UniversalAttack = build(choice("attack", name, **{**QUICK[name], **changes}), "attack")
    return built


def fitted(attack: UniversalAttack, model: nn.Module) -> FittedUniversal:
    own = torch.tensor(load_digits().images[: attack.training_images] / 16, dtype=torch.float)[:, None]
    return attack.fit(model, own, answers(model, own))


@pytest.mark.parametrize("norm", Universal.norms)
@pytest.mark.parametrize("name", NAMES)
def test_it_fools_most_images_alike_and_noise_of_its_size_does_not(name: str, norm: Norm, digits: Digits) -> None:
    model, x, _ = digits
    seen, epsilon = answers(model, x), {Norm.linf: 0.3, Norm.l2: 2.4}[norm]  # noise of ±0.3 has 2.4 in L2
    with seeded(0):
        attack = fitted(learner(name, norm=norm.value), model)
        v = attack.perturbation(epsilon)
        noise = 0.3 * torch.randn_like(x).sign()
    assert v.shape == (1, 1, 8, 8)
    assert sizes(v)[norm].item() <= epsilon * (1 + 1e-6)
    assert torch.equal(attack(model, x, seen, epsilon), (x + v).clamp(0, 1))
    rate, control = (fooled(model, x, change, seen).double().mean().item() for change in (v, noise))
    singular = name == "universal_singular"  # learnt from layers, not from predictions
    assert rate > (0.3 if singular else 0.5), (rate, control)
    assert rate > control + (0.1 if singular else 0.3), (rate, control)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_learnt_once_for_each_epsilon_and_from_nothing_but_own_images(name: str, digits: Digits) -> None:
    model, x, y = digits
    asked: list[int] = []
    counting = nn.Sequential(model)
    counting.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    attack = fitted(learner(name, training_images=30, epochs=2), counting)
    asked.clear()
    first = attack(counting, x, y, 0.2)
    assert asked
    assert max(asked) <= 30
    asked.clear()
    torch.testing.assert_close(attack(counting, x, y, 0.2), first, rtol=0, atol=0)
    assert not asked
    assert not torch.equal(attack(counting, x, y, 0.1), first)
    assert with_more_effort(attack) is None


def test_the_paper_s_loop_worked_out_by_hand() -> None:
    linear = nn.Linear(2, 2)
    linear.weight.data, linear.bias.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([-0.5, 0.0])
    model = nn.Sequential(nn.Flatten(), linear)  # class 0 while the first value is above 0.5
    own = torch.tensor([0.6, 0.7]).expand(3, 2).reshape(3, 1, 1, 2)
    v = learner("universal", overshoot=0, training_images=3, epochs=1).learn(model, own, 0.5)
    # the first image needs 0.1 and a nudge of 1e-4 to the left, then it and the others are fooled
    torch.testing.assert_close(v.flatten(), torch.tensor([-0.1, 0.0]), atol=2e-4, rtol=0)
    v = learner("universal", overshoot=0, training_images=3, epochs=1).learn(model, own, 0.05)
    assert torch.equal(v, torch.zeros_like(v))  # what fools nobody is not kept


def test_it_ends_once_enough_are_fooled(digits: Digits) -> None:
    model, x, _ = digits
    asked: list[int] = []
    counting = nn.Sequential(model)
    counting.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    effort = []
    for delta in (0.9, 0.0):
        asked.clear()
        with seeded(0):
            learner("universal", delta=delta, epochs=2).learn(counting, x[:20], 0.3)
        effort.append(len(asked))
    assert effort[0] < 0.7 * effort[1]


@pytest.mark.parametrize("name", ["universal_gradient", "universal_search"])
def test_a_target_draws_the_answers(name: str, digits: Digits) -> None:
    model, x, y = digits
    x_adv = fitted(learner(name, target=8), model)(model, x, y, 0.4)
    assert (answers(model, x_adv) == 8).double().mean() > 0.5


def test_the_ball_around_nothing_may_be_left_downwards() -> None:
    v = torch.tensor([[3.0, -4.0]])
    assert onto_ball(v, 1.0, Norm.linf).tolist() == [[1.0, -1.0]]
    torch.testing.assert_close(onto_ball(v, 1.0, Norm.l2), torch.tensor([[0.6, -0.8]]))
    torch.testing.assert_close(onto_ball(v, 1.0, Norm.l1), torch.tensor([[0.0, -1.0]]))
    assert onto_ball(v, 1.0, Norm.l0).tolist() == [[0.0, -4.0]]


def test_it_must_learn_before_it_is_called(digits: Digits) -> None:
    with pytest.raises(RuntimeError, match="learnt first"):
        learner("universal")(*digits, 0.1)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("universal", {"training_images": 0}, "training_images: must be at least 1"),
        ("universal", {"delta": 1.0}, "delta: must be at least 0 and below 1"),
        ("universal", {"target": 3}, "target: must be null"),
        ("universal", {"candidates": 1}, "candidates: must be at least 2"),
        ("universal_gradient", {"epochs": 0}, "epochs: must be at least 1"),
        ("universal_gradient", {"batch_size": 0}, "batch_size: must be at least 1"),
        ("universal_gradient", {"step_size": 0}, "step_size: must be above 0"),
        ("universal_gradient", {"momentum": 1}, "momentum: must be at least 0 and below 1"),
        ("universal_gradient", {"cap": 0}, "cap: must be above 0"),
        ("universal_search", {"softness": 0}, "softness: must be above 0"),
        ("universal_search", {"screening": 1.5}, "screening: must be at most 1"),
        ("universal_search", {"restarts": 0}, "restarts: must be at least 1"),
        ("universal_singular", {"target": 1}, "target: must be null"),
        ("universal_singular", {"layers": 0}, "layers: must be at least 1"),
        ("universal_singular", {"q": 0.5}, "q: must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        type(learner(name))(**{**vars(learner(name)), **changes})


@pytest.mark.peers
def test_it_fools_as_many_as_another_library_s(digits: Digits) -> None:
    import numpy as np
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    model, x, _ = digits
    own = torch.tensor(load_digits().images[:30] / 16, dtype=torch.float)[:, None]
    victim = PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), device_type="cpu")
    np.random.seed(0)
    theirs = UniversalPerturbation(
        victim, attacker="deepfool", attacker_params={"max_iter": 10, "nb_grads": 4, "verbose": False},
        delta=0.05, max_iter=2, eps=0.3, norm=np.inf, batch_size=1, verbose=False,
    )  # fmt: skip
    theirs.generate(own.numpy())
    with seeded(0):
        ours = fitted(learner("universal", training_images=30, epochs=2), model).perturbation(0.3)
    seen = answers(model, x)
    v = torch.tensor(np.asarray(theirs.noise), dtype=torch.float).view_as(ours)
    rates = [fooled(model, x, change, seen).double().mean().item() for change in (ours, v)]
    assert rates[0] >= rates[1] - 0.1, rates


class Ahead(nn.Module):
    """Class 0 is always ahead, and the tangent to the other's score says otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1).mean(1) - 0.5).tanh()
        return torch.stack([torch.full_like(score, 1.5), score], 1)


def test_a_step_that_changes_no_answer_is_not_taken() -> None:
    attack = learner("universal", training_images=5, epochs=1)
    v = attack.learn(Ahead(), torch.rand(5, 1, 4, 4), 0.3)
    assert not v.any()


def test_a_linear_layer_s_singular_vector_is_numpy_s() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 5)
    model = nn.Sequential(nn.Flatten(), linear)
    attack = learner("universal_singular", norm="l2", q=2, epochs=60)
    assert isinstance(attack, UniversalSingular)
    v = attack.singular(model, linear, torch.rand(7, 1, 3, 4)).flatten()
    first = torch.linalg.svd(linear.weight.detach()).Vh[0]
    assert abs(v @ first).item() == pytest.approx(1, abs=1e-4)


class Attended(nn.Module):
    """Attention over the rows of an image, whose fused kernel has no second derivative."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(len(x), 1, *x.shape[2:])
        return nn.functional.scaled_dot_product_attention(rows, rows, rows).flatten(1)


class Stateful(nn.Module):
    """A layer that returns its state beside its output, as recurrent layers do."""

    def __init__(self, inside: nn.Linear) -> None:
        super().__init__()
        self.weight = inside.weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.weight.T, x


class First(nn.Module):
    """The first of several outputs."""

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return both[0]


def test_of_a_layer_with_a_state_the_output_counts() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 5)
    layer = Stateful(linear)
    attack = learner("universal_singular", norm="l2", q=2, epochs=60)
    assert isinstance(attack, UniversalSingular)
    v = attack.singular(nn.Sequential(nn.Flatten(), layer, First()), layer, torch.rand(7, 1, 3, 4)).flatten()
    assert abs(v @ torch.linalg.svd(linear.weight.detach()).Vh[0]).item() == pytest.approx(1, abs=1e-4)


def test_a_layer_after_attention_changes_by_more_than_in_a_random_direction() -> None:
    torch.manual_seed(0)
    layer, x = Attended(), torch.rand(4, 1, 4, 8)
    attack = learner("universal_singular", norm="l2", q=2, epochs=20)
    assert isinstance(attack, UniversalSingular)
    directions = [attack.singular(nn.Sequential(layer, nn.Linear(32, 3)), layer, x), *torch.randn(20, 1, 1, 4, 8)]
    changed = [(layer(x + 1e-3 * v / v.norm()) - layer(x)).norm().item() for v in directions]
    assert changed[0] > max(changed[1:])


def test_the_norm_of_a_layer_s_change_grows_to_its_largest() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 8)
    model = nn.Sequential(nn.Flatten(), linear)
    attack = learner("universal_singular", epochs=20)
    assert isinstance(attack, UniversalSingular)
    v = attack.singular(model, linear, torch.rand(2, 1, 2, 3)).flatten()
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 6)  # a convex function is largest in a corner
    reached, all_reached = ((one @ linear.weight.detach().T).norm(10, dim=-1) for one in (v, corners))
    assert reached.item() > all_reached.median().item()
    assert all_reached.max().item() == pytest.approx(reached.item(), rel=0.05)


class Biased(nn.Module):
    """Of three classes the last is close to all images in one direction, and the second is far away."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.flatten(1).unbind(1)
        return torch.stack([torch.zeros_like(a), 20 * (a - 0.9), 2 * (b - 0.6)], 1)


def test_the_goal_that_changes_most_answers_is_followed() -> None:
    own = torch.rand(60, 1, 1, 2) * 0.3 + 0.1  # all of class 0
    seen = torch.zeros(60, dtype=torch.long)
    with seeded(0):
        v = learner("universal_search", epochs=5, batch_size=20, softness=0.2).learn(Biased(), own, 0.45)
        toward_far = learner("universal_search", epochs=5, batch_size=20, softness=0.2, target=1).learn(
            Biased(), own, 0.45
        )
    assert fooled(Biased(), own, v, seen).double().mean() > 0.6
    assert (answers(Biased(), own + toward_far) == 1).double().mean() < 0.2
    assert v.flatten()[1] == pytest.approx(0.45)


def test_the_published_cap_is_on_the_cross_entropy(digits: Digits) -> None:
    model, x, _ = digits
    seen = answers(model, x)
    changes = {**choice("attack", "universal_sgd")}
    changes.pop("defaults")
    attack = learner("universal_gradient", **{**changes, "cap": 0.5})
    assert isinstance(attack, UniversalGradient)
    logits = model(x)
    expected = nn.functional.cross_entropy(logits, seen, reduction="none").clamp(max=0.5)
    torch.testing.assert_close(attack.objective(logits, seen, None), expected)
    assert attack.momentum == 0
