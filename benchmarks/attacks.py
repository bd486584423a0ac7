"""Attacks against those of peers and against a bare loop, on one network and the same images."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.interleaved import Ratio, ratios
from benchmarks.networks import cifar_cnn
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.attack_view import folded_copy
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.attacks.losses import Loss
from trustml_cli.attacks.pgd import PGD
from trustml_cli.models.model import InputSpec, Normalization
from trustml_cli.system.hardware import keep_freed_memory
from trustml_cli.training.predict import BATCH

EPSILON = 8 / 255
IMAGES = 100
Attack = Callable[[], Tensor]


def network() -> nn.Module:
    """`cifar_cnn` for CIFAR-10 with random weights, and BatchNorm as if it had seen data."""
    torch.manual_seed(0)
    inputs = InputSpec((3, 32, 32), 10, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    model = cifar_cnn(inputs, Normalization.dataset)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


def bare(model: nn.Module, x: Tensor, y: Tensor, steps: int, size: float) -> Tensor:
    """Projected gradient ascent with nothing around it; one step of the size of the budget is FGSM."""
    x_adv = x
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        x_adv = x_adv.detach() + size * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPSILON), x + EPSILON).clamp(0, 1)
    return x_adv


def ours(model: nn.Module, x: Tensor, y: Tensor, attack: FGSM | PGD) -> Tensor:
    """As a task does it: asking a stand-in, channels last."""
    return attack(folded_copy(model), x, y, EPSILON)


def of_art(model: nn.Module, x: Tensor, y: Tensor, steps: int, size: float) -> Tensor:
    """The attacks of ART."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(x.shape[1:])
    peer = PyTorchClassifier(model, nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type="cpu")
    attack: Any = (
        FastGradientMethod(peer, eps=EPSILON, batch_size=len(x))
        if steps == 1
        else ProjectedGradientDescentPyTorch(
            peer, eps=EPSILON, eps_step=size, max_iter=steps, batch_size=len(x), verbose=False
        )
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def of_foolbox(model: nn.Module, x: Tensor, y: Tensor, steps: int, size: float) -> Tensor:
    """The attacks of foolbox."""
    import foolbox

    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack: Any = (
        foolbox.attacks.LinfFastGradientAttack()
        if steps == 1
        else foolbox.attacks.LinfBasicIterativeAttack(abs_stepsize=size, steps=steps, random_start=False)
    )
    result: Tensor = attack.run(peer, x, foolbox.criteria.Misclassification(y), epsilon=EPSILON)
    return result


def of_torchattacks(model: nn.Module, x: Tensor, y: Tensor, steps: int, size: float) -> Tensor:
    """The attacks of torchattacks."""
    import torchattacks

    attack = (
        torchattacks.FGSM(model, eps=EPSILON)
        if steps == 1
        else torchattacks.PGD(model, eps=EPSILON, alpha=size, steps=steps, random_start=False)
    )
    result: Tensor = attack(x, y)
    return result


def peer_attacks() -> Mapping[str, Callable[[nn.Module, Tensor, Tensor, int, float], Tensor]]:
    """What ours are held against, by name."""
    known = {"a bare loop": bare, "foolbox": of_foolbox, "ART": of_art, "torchattacks": of_torchattacks}
    if find_spec("torchattacks") is None:  # it pins versions that nothing else here lives with; see the Makefile
        del known["torchattacks"]
    return known


def gradient_attacks(n: int) -> list[Ratio]:
    """FGSM, PGD in ten steps and in forty; every peer's images must equal ours to 1e-6 but for roundings."""
    warnings.filterwarnings("ignore")
    model = network()
    last = model.to(memory_format=torch.channels_last)
    plain = network()
    found = []
    for name, steps, size in (("FGSM", 1, EPSILON), ("PGD-10", 10, EPSILON / 4), ("PGD-40", 40, EPSILON / 10)):
        images = BATCH if steps < 40 else IMAGES
        x, y = torch.rand(images, 3, 32, 32), torch.randint(0, 10, (images,))
        attack: FGSM | PGD = FGSM(norm=Norm.linf, target=None)
        if steps > 1:
            attack = PGD(
                norm=Norm.linf,
                target=None,
                loss=Loss.ce,
                steps=steps,
                step_size=size,
                rel_path_length=2.5,
                random_start=False,
                restarts=1,
            )

        def own(attack: FGSM | PGD = attack, x: Tensor = x, y: Tensor = y) -> Tensor:
            return ours(last, x.contiguous(memory_format=torch.channels_last), y, attack)

        peers: dict[str, Attack] = {
            label: partial(make, plain, x, y, steps, size) for label, make in peer_attacks().items()
        }
        for label, peer in peers.items():
            assert_equal(own(), peer(), f"{name}: {label}")
        found += ratios(f"{name}, {images} images of 3×32×32, `cifar_cnn`", own, peers, n if steps < 40 else -(-n // 3))
    return found


def with_memory_kept(n: int) -> list[Ratio]:
    """The same against a bare loop, after this process was made to keep freed memory as trustml's runs do.

    Call it last: that cannot be undone. It spares the bare loop as many page faults as ours.
    """
    keep_freed_memory()
    return [
        replace(one, what=f"{one.what}, freed memory kept")
        for one in gradient_attacks(n)
        if one.against == "a bare loop"
    ]


def floor(n: int) -> Ratio:
    """What forward pass and input gradient would take at the rate of a matrix product, against a bare loop's FGSM."""
    model, x, y = network(), torch.rand(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x[:1])
    operations = 2 * BATCH * counter.get_total_flops()  # the gradient costs as much as the forward pass
    square = torch.rand(2048, 2048)
    (found,) = ratios("", lambda: square @ square, {"a bare loop": partial(bare, model, x, y, 1, EPSILON)}, n)
    seconds = operations / (2 * 2048**3) * found.ours
    what = f"FGSM at the rate of a matrix product ({2 * 2048**3 / found.ours / 1e9:.0f} GFLOP/s), the same"
    return Ratio(what, found.against, seconds, found.theirs, n)


def curve(n: int) -> list[Ratio]:
    """Eight budgets from one gradient against a call for each."""
    model = network().to(memory_format=torch.channels_last)
    x, y = torch.rand(IMAGES, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.randint(0, 10, (IMAGES,))
    epsilons = [number / 100 for number in range(1, 9)]
    attack = FGSM(norm=Norm.linf, target=None)

    def at_once() -> list[Tensor]:
        return list(attack.curve(model, x, y, epsilons))

    def one_by_one() -> list[Tensor]:
        return [attack(model, x, y, epsilon) for epsilon in epsilons]

    for ours, theirs in zip(at_once(), one_by_one(), strict=True):
        assert torch.equal(ours, theirs)
    return ratios("FGSM at eight budgets", at_once, {"eight calls": one_by_one}, n)


def assert_equal(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Raise AssertionError unless the images are the same, but for values whose gradient rounds to the other sign.

    On a network with random weights that happens, and in forty steps one such value makes more of them.
    """
    same = ((ours - theirs).abs() <= 1e-6).double().mean().item()
    assert same > 0.95, f"{what}: only {same:.2%} of the values are equal"
