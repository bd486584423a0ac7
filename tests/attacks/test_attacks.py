"""Every attack in conf/attack, in every norm that it takes: one table for all."""

import pytest
import torch
from hydra.utils import get_class
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.configs import choice, choices
from trustml_cli.attacks.attack import Access, Attack, Norm
from trustml_cli.attacks.geometry import random_start
from trustml_cli.attacks.measure import sizes, within_budget
from trustml_cli.attacks.smallest import SmallestPerturbation
from trustml_cli.attacks.substitute import Substitute
from trustml_cli.config.instantiate import build
from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import seeded

EPSILONS = {Norm.linf: 0.1, Norm.l2: 1.0, Norm.l1: 6.0, Norm.l0: 8.0}  # of 108 values

FEW = {
    "steps": 4, "queries": 20, "rounds": 2, "constant": 10.0, "lr": 0.3, "epochs": 1, "labels": 150,
    "training_images": 40, "substitutes": 2, "width": 4,
}  # fmt: skip
"""What does not depend on how strong an attack is shows with so little work."""
MANY = {
    "steps": 20, "queries": 100, "rounds": 3, "constant": 1.0, "lr": 0.05, "epochs": 3, "labels": 320,
    "training_images": 40, "substitutes": 2, "width": 8,
}  # fmt: skip
SLOW = {"boundary": {"queries": 800}, "universal_search": {"epochs": 30}}
"""What an attack needs more of than MANY."""


def kind(name: str) -> type[Attack]:
    """The class that a YAML names."""
    found: type[Attack] = get_class(choice("attack", name)["_target_"])
    return found


def made(name: str, norm: Norm, work: dict[str, float], model: nn.Module, **changes: object) -> Attack:
    """The attack of a YAML, once it has learnt what it needs to from images that no test shows it."""
    node = choice("attack", name)
    work = {**work, **SLOW.get(name, {})} if work is MANY else work
    quick = {key: value for key, value in work.items() if key in node and (key != "lr" or name == "cw")}
    attack: Attack = build(choice("attack", name, norm=norm.value, **quick, **changes), "attack")
    own = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    with seeded(0):
        return attack.fit(model, own, model(own).argmax(1))


IN_NORMS = [(name, norm) for name in choices("attack") for norm in kind(name).norms]
# a substitute needs more labels than there is time for here; test_substitute.py says how strong it is
SEEING = [case for case in IN_NORMS if kind(case[0]).access is not Access.none and kind(case[0]) is not Substitute]
CASES, STRONG = (
    [pytest.param((*case, work), id=f"{case[0]}-{case[1].value}") for case in cases]
    for cases, work in ((IN_NORMS, FEW), (SEEING, MANY))
)


@pytest.fixture
def attack(request: pytest.FixtureRequest, model: nn.Module) -> Attack:
    name, norm, work = request.param
    return made(name, norm, work, model)


@pytest.fixture
def victim(attack: Attack, model: nn.Module, linear_model: nn.Module) -> nn.Module:
    """A model that the attack is for."""
    try:
        attack.check(model, (3, 6, 6))
    except ValueError:
        return linear_model
    return model


@pytest.fixture
def seen(victim: nn.Module, images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A few images and the classes that the model sees in them."""
    x = images[0][:12]
    return x, victim(x).argmax(1)


@pytest.mark.parametrize("attack", CASES, indirect=True)
def test_images_stay_in_range_and_budget(attack: Attack, victim: nn.Module, seen: tuple[Tensor, Tensor]) -> None:
    x, y = seen
    epsilons = [0.0, 0.01, 0.3, 2.0]
    for epsilon, x_adv in zip(epsilons, attack.curve(victim, x, y, epsilons), strict=True):
        assert within_budget(x_adv, x, epsilon, attack.norm), epsilon
        assert x_adv.dtype == x.dtype
        assert not x_adv.requires_grad
        changed = (x_adv != x).flatten(1).any(1)
        if epsilon == 0:
            assert not changed.any()
        if epsilon == 2.0:  # where a search for the smallest perturbation finds none, the image stays
            assert changed.any() if isinstance(attack, SmallestPerturbation) else changed.all()


@pytest.mark.parametrize("attack", STRONG, indirect=True)
def test_most_images_fall_and_random_noise_of_the_same_size_does_less(
    attack: Attack, victim: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images[0], victim(images[0]).argmax(1)
    epsilon = EPSILONS[attack.norm]
    with seeded(2):
        noisy = random_start(x, epsilon, attack.norm)
        fell = (victim(attack(victim, x, y, epsilon)).argmax(1) != y).double().mean()
    fell_to_noise = (victim(noisy).argmax(1) != y).double().mean()
    assert fell > 0.5
    assert fell > fell_to_noise + 0.3


@pytest.mark.parametrize(("name", "norm"), SEEING, ids=[f"{name}-{norm.value}" for name, norm in SEEING])
def test_a_targeted_attack_makes_its_target_likelier(
    name: str, norm: Norm, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    target = 2 * (SEEING.index((name, norm)) % 2)
    try:
        attack = made(name, norm, MANY, model, target=target)
    except InputError as error:
        if not str(error).startswith("attack.target:"):
            raise
        pytest.skip("takes no target")
    with seeded(1):
        x_adv = attack(model, x[y != target], y[y != target], EPSILONS[norm])
    before, after = (model(one).softmax(1)[:, target] for one in (x[y != target], x_adv))
    assert (after > before).double().mean() > 0.9


@pytest.mark.parametrize("attack", CASES, indirect=True)
def test_a_curve_gives_the_images_of_single_calls(
    attack: Attack, victim: nn.Module, seen: tuple[Tensor, Tensor]
) -> None:
    epsilons = [0.0, 0.05, 0.2]
    with seeded(4):
        curve = list(attack.curve(victim, *seen, epsilons))
    with seeded(4):
        single = [attack(victim, *seen, epsilon) for epsilon in epsilons]
    if attack.shares_work:  # the random numbers of one search
        single = [at_the_seed(4, attack, victim, seen, epsilon) for epsilon in epsilons]
    assert all(map(torch.equal, curve, single))


def at_the_seed(seed: int, attack: Attack, victim: nn.Module, seen: tuple[Tensor, Tensor], epsilon: float) -> Tensor:
    """The images of one call after seeding."""
    with seeded(seed):
        return attack(victim, *seen, epsilon)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), epsilon=st.floats(0, 4))
@pytest.mark.parametrize("attack", CASES, indirect=True)
def test_whatever_the_images_and_the_budget_it_is_kept(
    attack: Attack, victim: nn.Module, seed: int, epsilon: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    x = (2 * torch.rand(5, 3, 6, 6, generator=random) - 0.5).clamp(0, 1)  # half of the values are 0 or 1
    y = torch.randint(0, 3, (5,), generator=random)  # some are read wrong before the attack
    with seeded(seed):
        x_adv = attack(victim, x, y, epsilon)
    assert x_adv.isfinite().all()
    assert within_budget(x_adv, x, epsilon, attack.norm)


@pytest.mark.parametrize("attack", CASES, indirect=True)
def test_the_same_seed_gives_the_same_images_and_the_model_is_as_it_was(
    attack: Attack, victim: nn.Module, seen: tuple[Tensor, Tensor]
) -> None:
    x, y = seen
    for parameter in victim.parameters():
        parameter.requires_grad_(True)
    before = [parameter.clone() for parameter in victim.parameters()]
    original, found = x.clone(), []
    for _ in range(2):
        with seeded(7):
            found.append(attack(victim, x, y, EPSILONS[attack.norm]))
    assert torch.equal(*found)
    assert torch.equal(x, original)
    assert not victim.training
    assert all(parameter.grad is None for parameter in victim.parameters())
    assert all(torch.equal(now, then) for now, then in zip(victim.parameters(), before, strict=True))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", choices("attack"))
def test_a_norm_that_its_paper_does_not_give_is_refused(name: str) -> None:
    given = kind(name).norms
    for norm in {"l3", *(norm.value for norm in Norm if norm not in given)}:
        with pytest.raises(InputError, match=rf"attack\.norm.*{given[0].value}"):
            build(choice("attack", name, norm=norm), "attack")


def test_sizes_worked_out_by_hand() -> None:
    perturbation = torch.tensor([[[[3.0, 0.0], [0.0, -4.0]]]])
    by_hand = {Norm.linf: [4.0], Norm.l2: [5.0], Norm.l1: [7.0], Norm.l0: [2.0]}
    assert {norm: size.tolist() for norm, size in sizes(perturbation).items()} == by_hand


@pytest.mark.parametrize("attack", CASES, indirect=True)
def test_an_image_is_attacked_as_if_it_were_alone(
    attack: Attack, victim: nn.Module, seen: tuple[Tensor, Tensor]
) -> None:
    x, y = seen[0][:3], seen[1][:3]
    epsilon = EPSILONS[attack.norm]
    with seeded(3):
        first = attack(victim, x, y, epsilon)
        if not torch.equal(first, attack(victim, x, y, epsilon)):
            pytest.skip("draws random numbers, in the order of the batch")
    alone = torch.cat([attack(victim, x[i : i + 1], y[i : i + 1], epsilon) for i in range(len(x))])
    torch.testing.assert_close(first, alone, atol=1e-5, rtol=0)


# they weigh logits against pixels, stop at a confidence, round to zero, or cap a lead
BY_SCALE = ("cw", "ead", "confident", "fgsm_softmax", "universal_gradient", "universal_search")


SCALE_FREE = [case for case in IN_NORMS if case[0] not in BY_SCALE]


class Scaled(nn.Module):
    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.model(x)
        return logits


@pytest.fixture(scope="module")
def pair() -> nn.Module:
    """Two classes: with more, the cross-entropy weighs the wrong ones by their scale."""
    torch.manual_seed(4)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(128, 2))
    return layers.eval().requires_grad_(False)


@pytest.mark.parametrize(("name", "norm"), SCALE_FREE, ids=lambda value: getattr(value, "value", value))
def test_the_scale_of_the_logits_changes_no_image(name: str, norm: Norm, pair: nn.Module) -> None:
    """By powers of two, which float32 multiplies by exactly: 2⁻⁴⁰ is about 10⁻¹², 2¹⁰ about 10³."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).eval().requires_grad_(False) if name == "linear" else pair
    x = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    images = []
    for power in (0, -40, 10):
        victim = Scaled(model, 2.0**power).eval()
        attack = made(name, norm, FEW, victim)
        with seeded(3):
            images.append(attack(victim, x, model(x).argmax(1), EPSILONS[norm]))
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], x)
