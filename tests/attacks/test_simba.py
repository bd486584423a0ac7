"""SimBA against ART with the same steps, and its directions worked out by hand."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.measure import QueryCounter, sizes
from trustml_cli.attacks.simba import Basis, SimBA, direction
from trustml_cli.system.hardware import seeded

Digits = tuple[nn.Module, Tensor, Tensor]


def simba(queries: int = 200, step_size: float = 0.2, basis: str = "dct", frequencies: float = 1.0) -> SimBA:
    return SimBA(
        norm=Norm.l2, target=None, queries=queries, step_size=step_size, basis=Basis(basis), frequencies=frequencies
    )


def test_more_queries_only_add_to_what_falls_and_no_more_are_made(digits: Digits) -> None:
    model, x, y = digits
    stands = {}
    for queries in (1, 20, 200):
        asked = QueryCounter(model)
        with seeded(0):
            stands[queries] = model(simba(queries)(asked, x, y, 1.0)).argmax(1) == y
        assert asked.queries <= len(x) * (queries + 1)  # once more, to see what is read right
        assert asked.gradients == 0
    assert stands[1].all()
    assert not (stands[200] & ~stands[20]).any()
    assert stands[200].double().mean() < 0.5


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_as_many_fall_as_with_art(digits: Digits) -> None:
    from art.attacks.evasion import SimBA as Peer
    from art.estimators.classification import PyTorchClassifier

    model, x, y = digits[0], digits[1][:15], digits[2][:15]
    victim = PyTorchClassifier(
        nn.Sequential(model, nn.Softmax(1)), nn.NLLLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu"
    )
    peer = Peer(victim, attack="px", max_iter=40, order="random", epsilon=0.3, verbose=False, freq_dim=8)
    with seeded(0):
        theirs = torch.from_numpy(peer.generate(x.numpy(), y=nn.functional.one_hot(y, 10).numpy()))
        ours = simba(81, 0.3, "pixel")(model, x, y, 8.0)
    fell, peer_fell = ((model(images).argmax(1) != y).double().mean() for images in (ours, theirs))
    assert peer_fell > 0.3
    assert fell >= peer_fell - 0.1
    assert sizes(ours - x)[Norm.l2].mean() <= 1.1 * sizes(theirs - x)[Norm.l2].mean()


@pytest.mark.parametrize("basis", ["dct", "pixel"])
def test_the_directions_are_at_right_angles_and_fill_the_space(basis: str) -> None:
    waves = [simba(basis=basis).waves(side) for side in (3, 4)]
    all_of_them = direction(torch.arange(24), waves, channels=2).flatten(1)
    torch.testing.assert_close(all_of_them @ all_of_them.T, torch.eye(24), atol=1e-6, rtol=0)


def test_half_of_the_frequencies_are_the_low_ones() -> None:
    low = simba(frequencies=0.5).waves(8)
    assert low.shape == (4, 8)
    torch.testing.assert_close(low, simba().waves(8)[:4])
    assert ((low[:, 1:].sign() != low[:, :-1].sign()).sum(1)).tolist() == [0, 1, 2, 3]  # changes of sign


def test_a_step_that_makes_the_class_likelier_is_not_taken_and_its_opposite_is() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    x = torch.tensor([[[[0.9, 0.1, 0.9, 0.1]]]])  # one query, then one for each of two values and two for the others
    with seeded(0):
        x_adv = simba(queries=7, step_size=0.1, basis="pixel")(model, x, torch.tensor([0]), 1.0)
    torch.testing.assert_close(x_adv.flatten(), torch.tensor([0.8, 0.2, 0.8, 0.2]))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: simba(queries=0), "queries: must be at least 1, got 0"),
        (lambda: simba(step_size=0.0), "step_size: must be above 0"),
        (lambda: simba(frequencies=1.5), "frequencies: must be above 0"),
        (lambda: simba(basis="pixel", frequencies=0.5), "frequencies: must be 1 for basis=pixel, got 0.5"),
    ],
)
def test_values_out_of_range_are_refused(build: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        build()  # type: ignore[operator]
