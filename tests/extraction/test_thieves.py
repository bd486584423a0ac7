"""Every thief in conf/thief steals a victim; the equation solvers steal all of it."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from tests.configs import choice, choices
from trustml_cli.config.instantiate import build
from trustml_cli.extraction.bisection import LINES, by_bisection, queries_needed
from trustml_cli.extraction.distill import Distill, augmented
from trustml_cli.extraction.linear import LinearClassifier, LinearLogits, LinearSoftmax, well_spread
from trustml_cli.extraction.linear_labels import LinearLabels, doubtful, scores
from trustml_cli.extraction.thief import Means, Thief
from trustml_cli.extraction.victim import Answer, QueriesSpent, Victim
from trustml_cli.models.linear import linear_parameters
from trustml_cli.models.model import Normalize
from trustml_cli.system.errors import InputError

pytestmark = pytest.mark.e2e  # trains

SHAPE, CLASSES, VALUES = (1, 5, 5), 4, 25
CPU = torch.device("cpu")


def thief(name: str, **changes: object) -> Thief:
    built: Thief = build(choice("thief", name, **changes), f"thief.{name}")
    return built


@pytest.fixture
def network() -> nn.Module:
    """A linear classifier behind a normalisation layer, with weights as large as training makes them."""
    torch.manual_seed(0)
    linear = nn.Linear(VALUES, CLASSES)
    linear.weight.data.mul_(3)
    return nn.Sequential(Normalize((0.4,), (0.3,)), nn.Flatten(), linear).eval().requires_grad_(False)


def student() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(VALUES, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def means() -> Means:
    return Means(images(300, 1), student, CPU, torch.Generator().manual_seed(2))


def asked(network: nn.Module, limit: int, round_digits: int | None = None) -> Victim:
    return Victim(network, SHAPE, CLASSES, device=CPU, returns=Answer.logits, round_digits=round_digits, limit=limit)


def agreement(network: nn.Module, stolen: nn.Module) -> float:
    x = images(2000, 3)
    return (network(x).argmax(1) == stolen(x).argmax(1)).double().mean().item()


@pytest.mark.parametrize("name", choices("thief"))
@pytest.mark.parametrize("queries", [1, 2, 26, 200])
def test_every_query_is_used_and_none_more(name: str, queries: int, network: nn.Module) -> None:
    victim = asked(network, queries)
    stolen = thief(name)(victim, queries, means())
    assert victim.queries == queries
    assert stolen(images(3, 3)).shape == (3, CLASSES)
    assert not any(parameter.requires_grad for parameter in stolen.parameters())


@pytest.mark.parametrize("name", choices("thief"))
def test_more_queries_steal_more_and_the_victim_stays_as_it_is(name: str, network: nn.Module) -> None:
    before = deepcopy(network.state_dict())
    few, many = (agreement(network, thief(name)(asked(network, n), n, means())) for n in (3, 1000))
    assert many > 0.85
    assert many > few + 0.1
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", choices("thief"))
def test_the_same_seed_steals_the_same(name: str, network: nn.Module) -> None:
    one, two = (thief(name)(asked(network, 60), 60, means()).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)


def stolen_parameters(method: Thief, network: nn.Module, queries: int, round_digits: int | None = None) -> Tensor:
    return linear_parameters(method(asked(network, queries, round_digits), queries, means()), SHAPE)


@pytest.mark.parametrize("queries", [VALUES + 1, 2 * VALUES, 400])
def test_logits_give_the_parameters_in_pixel_space_from_d_plus_1_queries(queries: int, network: nn.Module) -> None:
    linear = network[2]
    weights = linear.weight / 0.3
    by_hand = torch.cat([weights, (linear.bias - 0.4 * weights.sum(1))[:, None]], 1)
    found = stolen_parameters(LinearLogits(centre=0.5), network, queries)
    torch.testing.assert_close(found, by_hand.double(), rtol=0, atol=1e-5)


def test_one_query_less_than_d_plus_1_is_not_enough(network: nn.Module) -> None:
    error = stolen_parameters(LinearLogits(centre=0.5), network, VALUES) - linear_parameters(network, SHAPE)
    assert error.abs().max() > 0.1


@pytest.mark.parametrize("centre", [0.2, 0.5])
def test_probabilities_give_all_but_what_the_softmax_hides(centre: float, network: nn.Module) -> None:
    method = LinearSoftmax(centre=centre)
    stolen = method(asked(network, VALUES + 1), VALUES + 1, means())
    x = images(500, 3)
    torch.testing.assert_close(stolen(x).softmax(1), network(x).softmax(1), rtol=0, atol=1e-6)
    found, truth = linear_parameters(stolen, SHAPE), linear_parameters(network, SHAPE)
    torch.testing.assert_close(method.comparable(found), method.comparable(truth), rtol=0, atol=1e-5)
    assert (found - truth).abs().max() > 0.1  # what all classes share is not to be known


def test_softmax_regressions_of_scikit_learn_are_stolen_too() -> None:
    random = torch.Generator().manual_seed(5)
    x = torch.rand(500, VALUES, generator=random)
    y = (x @ torch.randn(VALUES, CLASSES, generator=random)).argmax(1)
    peer = LogisticRegression(C=10.0).fit(x.numpy(), y.numpy())
    network = LinearClassifier(torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_))
    stolen = LinearSoftmax(centre=0.5)(asked(network, VALUES + 1), VALUES + 1, means())
    fresh = images(300, 3)
    theirs = torch.from_numpy(peer.predict_proba(fresh.flatten(1).numpy())).float()
    torch.testing.assert_close(stolen(fresh).softmax(1), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [LinearLogits(centre=0.5), LinearSoftmax(centre=0.5)])
def test_rounding_costs_the_thief_and_more_queries_win_some_of_it_back(method: Thief, network: nn.Module) -> None:
    truth = method.comparable(linear_parameters(network, SHAPE))

    def error(queries: int, digits: int | None) -> float:
        found = method.comparable(stolen_parameters(method, network, queries, digits))
        assert truth is not None
        assert found is not None
        return (found - truth).abs().max().item()

    exact, fine, coarse = (error(VALUES + 1, digits) for digits in (None, 4, 2))
    assert exact < fine / 10 < coarse / 100
    assert error(40 * (VALUES + 1), 2) < 0.5 * coarse


@pytest.mark.parametrize("start", ["held_out", "noise"])
def test_labels_alone_give_the_borders_and_beat_random_queries(start: str, network: nn.Module) -> None:
    method = thief("linear_labels", start=start)
    assert isinstance(method, LinearLabels)
    smart = agreement(network, method(asked(network, 1500), 1500, means()))
    x = images(1500, 8)
    plain = method.fit(x.flatten(1), network(x).argmax(1), torch.zeros(CLASSES, VALUES + 1))
    random = agreement(network, LinearClassifier(plain[:, :-1], plain[:, -1]))
    assert smart > 0.98
    assert 1 - smart < 1 - random  # fewer mistakes
    assert method.comparable(linear_parameters(network, SHAPE)) is None


@pytest.mark.parametrize("start", ["held_out", "noise"])
def test_fifty_labels_a_parameter_give_the_boundaries_exactly(start: str, network: nn.Module) -> None:
    queries = queries_needed(VALUES, CLASSES)
    assert queries <= 50 * CLASSES * (VALUES + 1)
    stolen = thief("linear_labels", start=start)(asked(network, queries), queries, means())
    x = images(20_000, 3)
    assert (network(x).argmax(1) == stolen(x).argmax(1)).double().mean() > 0.999
    found, truth = (linear_parameters(one, SHAPE) for one in (stolen, network))
    found, truth = found - found.mean(0), truth - truth.mean(0)
    torch.testing.assert_close(found / found.norm(), truth / truth.norm(), rtol=0, atol=1e-3)
    with pytest.raises(QueriesSpent):  # and it stops at its limit by its own count
        by_bisection(asked(network, 100), images(LINES * CLASSES, 1).flatten(1), torch.Generator())


@pytest.mark.parametrize(("raised", "left"), [({3: -99.0}, {0, 1, 2}), ({2: 99.0}, {2})])
def test_classes_that_the_victim_never_gives_are_never_predicted(
    raised: dict[int, float], left: set[int], network: nn.Module
) -> None:
    for number, by in raised.items():
        network[2].bias.data[number] += by
    queries = queries_needed(VALUES, CLASSES)
    stolen = thief("linear_labels")(asked(network, queries), queries, means())
    x = images(2000, 3)
    assert set(network(x).argmax(1).tolist()) == left
    assert (network(x).argmax(1) == stolen(x).argmax(1)).double().mean() > 0.999


def test_doubtful_points_lie_where_the_answer_changes() -> None:
    model = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, -0.25]])  # class 1 right of 0.25
    a, b = torch.tensor([[0.0, 0.3], [0.9, 0.1]]), torch.tensor([[1.0, 0.3], [0.1, 0.5]])
    points = doubtful(model, a, b)
    assert points[:, 0] == pytest.approx([0.25, 0.25], abs=1e-5)
    assert points[:, 1] == pytest.approx([0.3, 0.1 + 0.4 * 0.65 / 0.8], abs=1e-5)
    assert scores(model, points).argmax(1).tolist() == [0, 1]  # on the side of a


def test_queries_are_in_range_and_well_conditioned() -> None:
    x = well_spread(3 * VALUES, VALUES, 0.3, torch.Generator().manual_seed(0))
    assert x.shape == (3 * VALUES, VALUES)
    assert (x >= 0).all()
    assert (x <= 1).all()
    assert torch.equal(x, x.float().double())
    system = torch.cat([x[: VALUES + 1] - 0.3, torch.ones(VALUES + 1, 1)], 1)
    random = torch.cat([torch.rand(VALUES + 1, VALUES).double() - 0.5, torch.ones(VALUES + 1, 1)], 1)
    assert torch.linalg.cond(system) < 15 < torch.linalg.cond(random)


class Wavy(nn.Module):
    """Three classes that no linear model tells apart."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = 2 * x.flatten(1)[:, :2].T
        return 4 * torch.stack([torch.sin(a * b), torch.cos(a + b), torch.sin(3 * a) / 2], 1)


@pytest.mark.parametrize("answer", list(Answer))
def test_a_network_is_stolen_from_every_kind_of_answer(answer: Answer) -> None:
    def learner() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

    def victim(limit: int) -> Victim:
        return Victim(Wavy(), (1, 2, 2), 3, device=CPU, returns=answer, round_digits=None, limit=limit)

    own = torch.rand(3000, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    test = torch.rand(1000, 1, 2, 2, generator=torch.Generator().manual_seed(2))
    method = thief("distill", source="held_out", answer=answer.value, epochs=15)
    stolen = method(victim(3000), 3000, Means(own, learner, CPU, torch.Generator().manual_seed(0)))
    assert (stolen(test).argmax(1) == Wavy()(test).argmax(1)).double().mean() > 0.93


@pytest.mark.parametrize(("source", "seeds", "images"), [("jacobian", 10, 300), ("held_out", 3, 10)])
def test_jacobian_augmentation_doubles_the_queries_by_signed_steps(
    source: str, seeds: int, images: int, network: nn.Module
) -> None:
    method = thief("distill", source=source, seeds=seeds, step=0.1, epochs=1)
    assert isinstance(method, Distill)
    given = means()
    own = given.images[:images]
    rounds = [x for x, _ in method.rounds(asked(network, 35), 35, replace(given, images=own), student())]
    assert [len(x) for x in rounds] == [10, 20, 35]
    own = own.flatten(1)
    assert all((own == image).all(1).any() for image in rounds[0].flatten(1))
    for image in rounds[2].flatten(1)[10:20]:  # each lies a step of 0.1, or less at the border, from one of the first
        distances = (image - rounds[0].flatten(1)).abs().amax(1)
        assert distances.min() == pytest.approx(0.1, abs=1e-6)


def test_a_signed_step_follows_the_gradient_of_the_label_s_logit(network: nn.Module) -> None:
    x, labels = images(6, 1) * 0.5 + 0.25, torch.tensor([0, 1, 2, 3, 0, 1])
    weights = linear_parameters(network, SHAPE)[:, :-1].float()
    expected = x + 0.1 * weights[labels].sign().view(x.shape)
    torch.testing.assert_close(augmented(network, x, labels, 0.1, CPU), expected)


def test_more_seeds_than_own_images_are_refused() -> None:
    thief("distill", source="jacobian").check(300, 100)
    with pytest.raises(ValueError, match=r"100 held-out images .* there are 99"):
        thief("distill", source="jacobian").check(300, 99)
    thief("distill", source="held_out").check(300, 1)


@pytest.mark.parametrize(("queries", "batches"), [(1, [2]), (65, [33, 32]), (64, [64])])
def test_no_batch_has_one_image_and_there_are_enough_batches(
    queries: int, batches: list[int], network: nn.Module
) -> None:
    shown: list[int] = []
    learner = student()
    learner.register_forward_pre_hook(lambda layer, given: shown.append(len(given[0])) if layer.training else None)
    given = replace(means(), student=lambda: learner)
    thief("distill", batch_size=64, epochs=2, steps=5)(asked(network, queries), queries, given)
    assert shown == batches * -(-5 // len(batches))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("linear_logits", {"centre": 0.0}, "centre: must be above 0 and below 1"),
        ("linear_softmax", {"centre": 1.0}, "centre: must be above 0 and below 1"),
        ("linear_labels", {"start": "images"}, "start: .*held_out, noise"),
        ("linear_labels", {"rounds": 0}, "rounds: must be at least 1"),
        ("linear_labels", {"decay": 0}, "decay: must be above 0"),
        ("linear_labels", {"iterations": 0}, "iterations: must be at least 1"),
        ("distill", {"source": "web"}, "source: .*noise, held_out, jacobian"),
        ("distill", {"answer": "gradients"}, "answer: .*logits, probabilities, labels"),
        ("distill", {"steps": 0}, "steps: must be at least 1"),
        ("distill", {"seeds": 0}, "seeds: must be at least 1"),
        ("distill", {"step": 0}, "step: must be above 0"),
        ("distill", {"lr": -1}, "lr: must be above 0"),
    ],
)
def test_wrong_values_are_named(name: str, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=f"thief.{name}.{words}"):
        thief(name, **changes)
