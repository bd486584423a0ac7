"""The one-pixel attack against every single pixel, against scipy's differential evolution, and its parts by hand."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.losses import log_odds
from trustml_cli.attacks.measure import QueryCounter, sizes
from trustml_cli.attacks.one_pixel import OnePixel, evolved, painted
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]


def one_pixel(steps: int = 15, population: int = 40) -> OnePixel:
    return OnePixel(norm=Norm.l0, target=None, steps=steps, population=population)


def test_it_comes_near_to_the_best_of_all_single_pixels(digits: Digits) -> None:
    model, x, y = digits[0], digits[1][:20], digits[2][:20]
    asked = QueryCounter(model)
    with seeded(0):
        x_adv = one_pixel()(asked, x, y, 1)
    assert asked.queries <= 20 * (1 + 40 * 16)
    assert sizes(x_adv - x)[Norm.l0].max() == 1
    # all 64 pixels, at both ends of the range
    every = torch.stack([x.flatten(1).index_fill(1, torch.tensor([p]), v) for p in range(64) for v in (0.0, 1.0)], 1)
    logits = model(every.view(-1, 1, 8, 8)).view(20, 128, 10)
    falls = (logits.argmax(2) != y[:, None]).any(1)
    fell = model(x_adv).argmax(1) != y
    assert falls.sum() >= 3
    assert fell[falls].double().mean() > 0.8
    stands = ~falls & ~fell
    best = torch.stack([log_odds(logits[:, k], y, None) for k in range(128)], 1).amax(1)
    gained = log_odds(model(x_adv), y, None) - log_odds(model(x), y, None)
    assert (gained > 0.8 * (best - log_odds(model(x), y, None)))[stands].double().mean() > 0.8


@pytest.mark.peers
def test_it_raises_the_log_odds_as_scipy_does_with_as_many_queries(digits: Digits) -> None:
    from scipy.optimize import differential_evolution

    model, x, y = digits[0], digits[1][:5], digits[2][:5]
    with seeded(0):
        ours = log_odds(model(one_pixel(10, 30)(model, x, y, 1)), y, None)
    theirs = []
    for image, label in zip(x, y, strict=True):

        def cost(changes: object, image: Tensor = image, label: Tensor = label) -> object:
            people = torch.as_tensor(changes).T.float()[:, None]
            images = painted(image.expand(len(people), *image.shape), people)
            return -log_odds(model(images), label.expand(len(people)), None).double().numpy()

        found = differential_evolution(
            cost, [(0, 1)] * 3, strategy="rand1bin", maxiter=10, popsize=10, recombination=1, mutation=0.5, tol=0,
            polish=False, vectorized=True, updating="deferred", rng=0,
        )  # fmt: skip
        theirs.append(-found.fun)
    stands = ours <= 0  # where it falls the search ends
    assert stands.sum() >= 2
    assert ours[stands].mean() >= torch.tensor(theirs)[stands].mean() - 0.3


def test_pixels_are_painted_where_and_as_the_candidate_says() -> None:
    x = torch.zeros(1, 3, 2, 4)
    changes = torch.tensor([[[0.6, 0.3, 0.1, 0.2, 0.3], [1.0, 1.0, 0.7, 0.8, 0.9]]])
    image = painted(x, changes)
    assert image[0, :, 1, 1].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert image[0, :, 1, 3].tolist() == pytest.approx([0.7, 0.8, 0.9])
    assert (image != 0).sum() == 6


def test_a_child_has_three_other_parents() -> None:
    people = 0.3 + 0.05 * torch.eye(6)[None, :, :, None]  # each candidate has a place of its own
    with seeded(0):
        children = evolved(people)[0, :, :, 0] - 0.3
    for number, child in enumerate(children / 0.05):
        assert sorted(child.tolist()) == pytest.approx([-0.5, 0, 0, 0, 0.5, 1], abs=1e-5)
        assert child[number] == pytest.approx(0, abs=1e-5)


def test_a_budget_below_a_pixel_of_colour_changes_fewer_channels(
    model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images[0][:5], images[1][:5]
    for epsilon in (2, 3, 7):
        with seeded(0):
            changed = one_pixel(3, 10)(model, x, y, epsilon) != x
        assert 0 < changed.flatten(1).sum(1).max() <= epsilon
        assert changed.any(1).flatten(1).sum(1).max() <= -(-epsilon // 3)


@pytest.mark.parametrize(("key", "value", "least"), [("steps", 0, 1), ("population", 3, 4)])
def test_values_out_of_range_are_refused(key: str, value: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"^{key}: must be at least {least}, got {value}"):
        one_pixel(**{key: value})
