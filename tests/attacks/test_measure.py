"""What is counted while an attack runs, and what happens when memory runs out."""

import pytest
import torch
from torch import Tensor, nn

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.attacks.bim import BIM
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.losses import Loss
from trustml_cli.attacks.measure import QueryCounter, attack_curve
from trustml_cli.attacks.noise import Noise
from trustml_cli.attacks.pgd import PGD
from trustml_cli.system.hardware import is_out_of_memory

BIM_10 = BIM(norm=Norm.linf, target=None, steps=10, step_size=None, rel_path_length=2.0)


class Narrow(nn.Module):
    """A model on a device that holds `most` images at once."""

    def __init__(self, model: nn.Module, most: int, error: RuntimeError) -> None:
        super().__init__()
        self.model, self.most, self.error = model, most, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error
        logits: Tensor = self.model(x)
        return logits


def test_forward_and_backward_passes_are_counted_by_image(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, _ = images
    counted = QueryCounter(model)
    logits = counted(x.clone().requires_grad_(True))
    logits[:, 0].sum().backward(retain_graph=True)
    logits[:, 1].sum().backward()
    counted(x[:5])
    assert (counted.queries, counted.gradients) == (45, 80)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (FGSM(norm=Norm.linf, target=None), [(1, 1), (1, 1)]),  # one gradient serves both, and each needs it
        (BIM_10, [(10, 10), (10, 10)]),
        (Noise(norm=Norm.linf, target=None), [(0, 0), (0, 0)]),
    ],
    ids=["fgsm", "bim", "noise"],
)
def test_queries_are_those_that_the_images_of_an_epsilon_needed(
    attack: FGSM, expected: list[tuple[int, int]], model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    curve = attack_curve(model, attack, [(x[:30], y[:30]), (x[30:], y[30:])], [0.1, 0.2], keep=0)
    assert [(attacked.queries, attacked.gradients) for attacked in curve.attacked] == expected


@pytest.mark.parametrize(
    ("attack", "queries"), [(FGSM(norm=Norm.linf, target=None), 1), (BIM_10, 10)], ids=["together", "one by one"]
)
def test_without_a_budget_no_attack_is_run(
    attack: Attack, queries: int, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    curve = attack_curve(model, attack, [images], [0, 0.2], keep=3)
    assert [(attacked.epsilon, attacked.queries, attacked.gradients) for attacked in curve.attacked] == [
        (0, 0, 0),
        (0.2, queries, queries),
    ]
    assert torch.equal(curve.attacked[0].examples, images[0][:3])
    assert not curve.attacked[0].sizes[Norm.linf].any()
    assert torch.equal(curve.attacked[0].answers.predicted, curve.clean.predicted)

    counted = QueryCounter(model)
    curve = attack_curve(counted, attack, [images], [0], keep=0)
    assert (counted.queries, counted.gradients, curve.zero_gradient) == (40, 0, None)  # it is asked for its answers


def test_restarts_ask_about_images_that_stand_only(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    attack = PGD(
        norm=Norm.linf,
        target=None,
        loss=Loss.ce,
        steps=4,
        step_size=None,
        rel_path_length=2.5,
        random_start=True,
        restarts=3,
    )
    all_fall = attack_curve(model, attack, [images], [0.5], keep=0).attacked[0]
    assert all_fall.gradients == 4
    some_stand = attack_curve(model, attack, [images], [0.02], keep=0).attacked[0]
    assert 4 < some_stand.gradients <= 12


ERRORS = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory (tried …)")]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "words"])
def test_batches_halve_themselves_when_memory_runs_out(
    error: RuntimeError, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    batches = [(x[:24], y[:24]), (x[24:], y[24:])]
    whole = attack_curve(model, BIM_10, batches, [0.02, 0.1], keep=10, transfer_models={"same": model})
    halved = attack_curve(
        Narrow(model, 6, error), BIM_10, batches, [0.02, 0.1], keep=10, transfer_models={"same": model}
    )
    assert (whole.batch_size, halved.batch_size) == (None, 6)
    assert torch.equal(halved.labels, whole.labels)
    torch.testing.assert_close(halved.examples, whole.examples)
    for mine, theirs in zip(halved.attacked, whole.attacked, strict=True):
        assert torch.equal(mine.answers.predicted, theirs.answers.predicted)
        assert torch.equal(mine.transferred["same"].predicted, mine.answers.predicted)
        torch.testing.assert_close(mine.sizes[Norm.l2], theirs.sizes[Norm.l2], atol=1e-5, rtol=0)
        torch.testing.assert_close(mine.examples, theirs.examples, atol=1e-5, rtol=0)
        assert (mine.queries, mine.gradients) == (theirs.queries, theirs.gradients)


def test_an_image_that_is_too_large_by_itself_and_other_errors_are_not_hidden(
    model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    for narrow in (Narrow(model, 0, ERRORS[0]), Narrow(model, 6, RuntimeError("shapes do not match"))):
        with pytest.raises(RuntimeError, match=r"out of memory|shapes"):
            attack_curve(narrow, BIM_10, [images], [0.1], keep=0)


def test_other_networks_are_shown_the_same_images(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.eye(3)[torch.full((len(x),), 2)]

    curve = attack_curve(model, BIM_10, [images], [0.1], keep=40, transfer_models={"other": Watching()})
    assert curve.clean_transferred["other"].predicted.unique().tolist() == [2]
    assert curve.attacked[0].transferred["other"].predicted.unique().tolist() == [2]
    assert torch.equal(seen[0], images[0])
    assert torch.equal(seen[1], curve.attacked[0].examples)
