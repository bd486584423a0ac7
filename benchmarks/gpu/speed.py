"""The parts of `benchmarks.gpu` that measure speed; each yields its figures as it measures them."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from statistics import mean, median, stdev
from time import perf_counter
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.attacks import EPSILON, bare, network, of_torchattacks
from benchmarks.gpu.rows import Row, figures
from benchmarks.gpu.setup import Setup, choice, resnet18, table
from trustml_cli.attacks.attack_view import folded_copy
from trustml_cli.data.batches import batches
from trustml_cli.system.hardware import make_deterministic
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH

NEAR = 0.01  # robust accuracies under two PGDs
NO_WORSE = 0.005  # robust accuracies under two standard ensembles
SAME_VALUES = 0.95  # share of pixels in which two PGDs must agree; the rest is gradients that round to the other sign


def card(setup: Setup) -> Iterator[Row]:
    """What the card is and can do, and whether fp32 is fp32 on it; reads CIFAR-10 into the cache."""
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    name = torch.cuda.get_device_name() if setup.device.startswith("cuda") else "CPU"
    yield Row("device", note=f"{name}; {versions}; {os.cpu_count()} CPU cores")
    for dtype, size in ((torch.bfloat16, 8192), (torch.float32, 4096)):
        limit = matmul_limit(setup, dtype, 256 if setup.tiny else size)
        yield Row(f"matrix product, {str(dtype)[6:]}", limit, "TFLOP/s", 10)
    source = torch.rand(10**6 if setup.tiny else 2 * 10**9 // 4, device=setup.device)
    target = torch.empty_like(source)
    copying = median(setup.seconds(lambda: target.copy_(source)) for _ in range(10))
    yield Row("copy, bytes read and written", 2 * source.nbytes / copying / 1e12, "TB/s", 10)
    model = network()
    x = torch.rand(8 if setup.tiny else 256, 3, 32, 32)
    with torch.no_grad():
        exact = model.double()(x.double())
        model = model.float().to(setup.device)
        for what in ("as torch is set", "as a run is set"):
            apart = (model(x.to(setup.device)).cpu() - exact).abs().max() / exact.std()
            as_run = what != "as torch is set"
            yield Row(f"error of fp32 logits, {what}", float(apart), "of their spread", len(x),
                      holds=float(apart) < 1e-4 if as_run else None)  # fmt: skip
            make_deterministic(torch.device(setup.device))
    start = perf_counter()
    data = setup.images()
    yield Row("reading the data set", perf_counter() - start, "s", len(data.train), note="; ".join(data.notes))


def matmul_limit(setup: Setup, dtype: torch.dtype, size: int) -> float:
    """TFLOP/s of a product of two random square matrices; the median of ten after three."""
    a, b = (torch.randn(size, size, device=setup.device).to(dtype) for _ in range(2))
    times = [setup.seconds(lambda: a @ b) for _ in range(13)][3:]
    return float(2 * size**3 / median(times) / 1e12)


def fast(setup: Setup) -> Iterator[Row]:
    """`experiment=cifar_fast` with five seeds, in one process: accuracy, and seconds with and without compiling."""
    words = ["experiment=cifar_fast", "seed=0,1,2,3,4"]
    if setup.tiny:
        words = ["experiment=cifar_fast", "seed=0,1", "dataset=digits", "dataset.limit=64", "compile=false"]
        words += ["trainer.batch_size=32", "trainer.epochs=3", "model.width=2"]
    start = perf_counter()
    code, runs = setup.trustml("fast", "-m", *words)
    wall = perf_counter() - start
    scores, warm, cold = [], [], []
    for run in runs:
        for row in table(run):
            scores.append(float(row["test_accuracy"]))
        seconds = [float(row["seconds"]) for row in table(run, "history")]
        if len(seconds) > 1:
            warm.append(mean(seconds[1:]) * len(seconds))
            cold.append(sum(seconds))
    yield Row("exit status", code, n=len(runs), holds=code == 0)
    if not warm:
        return
    yield Row("test accuracy", mean(scores), "", len(scores), note=spread(scores))
    yield Row("seconds of training without compiling", mean(warm), "s", len(warm),
              note=f"all epochs as fast as those after the first; {spread(warm)}")  # fmt: skip
    yield Row("seconds of training with compiling", mean(cold), "s", len(cold), note=spread(cold))
    yield Row("seconds of the command", wall, "s", len(runs))


def spread(values: list[float]) -> str:
    """The values, and their standard deviation."""
    several = f"standard deviation {stdev(values):.2g}; " if len(values) > 1 else ""
    return several + ", ".join(f"{value:.4g}" for value in values)


def airbench(setup: Setup) -> Iterator[Row]:
    """The 94 % run of the `airbench` package five times on the same images, timed from outside as a whole."""
    if find_spec("airbench") is None or setup.tiny:
        yield Row("not compared", note="in the tiny form" if setup.tiny else "airbench is not installed")
        return
    data, folder = setup.images(), setup.work / "cifar10"  # where the package looks
    folder.mkdir()
    for name, split in (("train", data.train), ("test", data.test)):
        raw, labels = next(split.stream(torch.arange(len(split)), len(split)))
        left = {"images": raw.permute(0, 2, 3, 1).contiguous(), "labels": labels, "classes": list(data.classes)}
        torch.save(left, folder / f"{name}.pt")
    os.chdir(setup.work)
    import airbench as peer

    aug = {"flip": True, "translate": 2}
    train = peer.CifarLoader("cifar10", train=True, batch_size=1024, aug=aug, altflip=True)
    test = peer.CifarLoader("cifar10", train=False, batch_size=2000)
    scores, times = [], []
    with contextlib.redirect_stdout(sys.stderr):
        peer.warmup94(train)
        for run in range(5):
            torch.manual_seed(run)
            trained: list[Any] = []
            times.append(setup.seconds(lambda: trained.append(peer.train94(train, run=run, verbose=False))))  # noqa: B023
            scores.append(peer.evaluate(trained[0], test, tta_level=2))
    yield Row("test accuracy", mean(scores), "", len(scores), note=spread(scores))
    yield Row("seconds of training", mean(times), "s", len(times), note=spread(times))
    for row in figures(setup.work, "fast"):
        if row.what == "seconds of training without compiling" and row.value:
            yield Row("ours against theirs, seconds without compiling", row.value / mean(times), "", row.n)
        if row.what == "test accuracy" and row.value:
            yield Row("ours minus theirs, points of accuracy", 100 * (row.value - mean(scores)), "", row.n)


def resnet(setup: Setup) -> Iterator[Row]:
    """ResNet-18 on CIFAR-10, batches of 1,024 in bf16: images per second, and their share of the card's limit."""
    words = ["task=train", "model=resnet18", "dataset=cifar10", "precision=bf16", "trainer.batch_size=1024",
             "trainer.optimizer=sgd", "trainer.lr=0.1", "trainer.flip=true", "trainer.crop_padding=4"]  # fmt: skip
    if setup.tiny:
        words[2:] = ["dataset=digits", "dataset.limit=20", "trainer.batch_size=8", "trainer.steps_per_epoch=1"]
    limit = matmul_limit(setup, torch.bfloat16, 256 if setup.tiny else 8192)
    model = resnet18(32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    operations = 3 * counter.get_total_flops()  # the gradients cost twice the forward pass
    yield Row("matrix product, bfloat16", limit, "TFLOP/s", 10)
    yield Row("operations for an image in training", operations / 1e9, "GFLOP")
    for compiled in ("false", "true"):
        epochs = 2 if setup.tiny else 4
        on = "false" if setup.tiny else compiled
        run = setup.run(f"resnet-{compiled}", *words, f"compile={on}", f"trainer.epochs={epochs}")
        seconds = [float(row["seconds"]) for row in table(run, "history")]
        (row,) = table(run)
        rate = float(row["images_per_second"]) * sum(seconds) / len(seconds) / median(seconds[1:])
        share = rate * operations / 1e12 / limit
        note = f"{share:.1%} of the matrix product's rate; epochs took {', '.join(f'{each:.2f}' for each in seconds)} s"
        yield Row(f"training, compile={compiled}", rate, "images/s", len(seconds) - 1, note)


def attacks(setup: Setup) -> Iterator[Row]:
    """PGD-10 and `standard` at 8/255 on 1,000 test images of an adversarially trained `cifar_cnn`, against peers."""
    words = ["task=train", "model=cifar_cnn", "dataset=cifar10", "defence=fast", "defence.epsilon=8/255"]
    words += ["trainer.batch_size=250", "trainer.epochs=8"]
    if setup.tiny:
        words[2:] = ["dataset=digits", "dataset.limit=100", "trainer=smoke"]
    run = setup.run("attacks", *words)
    key = json.loads((run / "run.json").read_text())["model_key"]
    data = setup.images()
    model = choice("model", "cifar_cnn").build(input_spec(data))
    model.load_state_dict(load_file(setup.cache / "models" / key / "model.safetensors"))
    plain = model.to(setup.device).eval().requires_grad_(False)
    last = folded_copy(plain).to(memory_format=torch.channels_last)
    images = 20 if setup.tiny else 1000
    x, y = next(batches(data.test.subset(torch.arange(images)), images, torch.device(setup.device)))
    make_deterministic(torch.device(setup.device))
    yield Row("clean accuracy", stand(plain, x, y), "", images)
    yield from pgd_against_peers(setup, plain, last, x, y)
    yield from standard_against_peer(setup, plain, last, x, y)


@torch.no_grad()
def stand(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of images that are classified correctly."""
    return float((model(x).argmax(1) == y).double().mean())


def pgd_against_peers(setup: Setup, plain: nn.Module, last: nn.Module, x: Tensor, y: Tensor) -> Iterator[Row]:
    """PGD in ten steps against a bare loop and torchattacks."""
    size, contiguous = EPSILON / 4, x.contiguous()
    attack = choice("attack", "pgd", steps=10, step_size=size, random_start=False)
    parts, first = list(zip(x.split(BATCH), y.split(BATCH), strict=True)), folded_copy(plain)
    makers: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: attack(last, x, y, EPSILON),
        "ours, channels first": lambda: attack(first, contiguous, y, EPSILON),
        f"ours, {BATCH} images at once": lambda: torch.cat([attack(last, *part, EPSILON) for part in parts]),
        "a bare loop": lambda: bare(plain, contiguous, y, 10, size),
        "torchattacks": lambda: of_torchattacks(plain, contiguous, y, 10, size),
    }
    if find_spec("torchattacks") is None:
        del makers["torchattacks"]
        yield Row("PGD-10: not compared", note="torchattacks is not installed")
    made = {name: make() for name, make in makers.items()}
    ours = stand(plain, made["ours"], y)
    yield Row("PGD-10: robust accuracy", ours, "", len(x))
    for name, images in made.items():
        if name != "ours":
            same = float(((images - made["ours"]).abs() <= 1e-6).double().mean())
            theirs = stand(plain, images, y)
            yield Row(f"PGD-10: share of equal pixels, {name}", same, "", len(x), f"robust accuracy {theirs:.4f}",
                      holds=same > SAME_VALUES and abs(ours - theirs) <= NEAR)  # fmt: skip
    for tf32 in (False, True):  # True is how torch is set by default, and the peers with it
        torch.backends.cudnn.allow_tf32 = tf32
        for make in makers.values():
            make()
        rounds = [{name: setup.seconds(make) for name, make in makers.items()} for _ in range(2 if setup.tiny else 15)]
        times = {name: median(each[name] for each in rounds) for name in makers}
        for name, seconds in times.items():
            note = "" if name == "ours" else f"ours takes {times['ours'] / seconds:.2f} of it"
            yield Row(f"PGD-10{' in TF32' if tf32 else ''}: {name}", 1e3 * seconds, "ms", len(rounds), note)
    torch.backends.cudnn.allow_tf32 = False


def standard_against_peer(setup: Setup, plain: nn.Module, last: nn.Module, x: Tensor, y: Tensor) -> Iterator[Row]:
    """All of AutoAttack against pyautoattack: at most one image in 200 more may stand under ours."""
    steps, queries = (3, 10) if setup.tiny else (100, 5000)

    def own(steps: int = steps, queries: int = queries) -> Tensor:
        attack = choice("attack", "standard", steps=steps, queries=queries)
        torch.manual_seed(0)
        return attack(last, x, y, EPSILON)  # type: ignore[no-any-return]

    made: list[Tensor] = []
    own(3, 10)  # loads the kernels
    ours = setup.seconds(lambda: made.append(own()))
    robust = stand(plain, made[0], y)
    size = float((made[0] - x).abs().max())
    yield Row("standard: ours", ours, "s", 1, f"robust accuracy {robust:.4f} of {len(x)} images, at most {size:.5f}",
              holds=size <= EPSILON + 1e-6)  # fmt: skip
    if find_spec("pyautoattack") is None:
        yield Row("standard: not compared", note="pyautoattack is not installed")
        return
    from pyautoattack import AutoAttack

    peer = AutoAttack(plain, norm="Linf", eps=EPSILON, seed=0, device=setup.device)
    for part in (peer.apgd, peer.apgd_targeted, peer.fab):
        part.n_iter = part.n_iter_orig = steps
    if setup.tiny:
        peer.apgd.n_iter_2 = peer.apgd_targeted.n_iter_2 = 1
    peer.square.n_queries = queries
    contiguous = x.contiguous()
    theirs = setup.seconds(lambda: made.append(peer.run_standard_evaluation(contiguous, y, batch_size=len(x))[0]))
    stands = stand(plain, made[1], y)
    yield Row("standard: pyautoattack", theirs, "s", 1, f"robust accuracy {stands:.4f}; ours takes {ours / theirs:.2f}",
              holds=robust <= stands + (0.1 if setup.tiny else NO_WORSE))  # fmt: skip
