"""task=credibility: whether training images support a classifier's answers, by deep k-nearest neighbours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from trustml_cli.attacks.attack import Attack, Norm
from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory, Split, random_subset
from trustml_cli.data.unseen import split_validation
from trustml_cli.defences.defence import Defence
from trustml_cli.metrics.columns import Columns, conditions, headline, higher, logged, lower, neither, sometimes
from trustml_cli.metrics.intervals import average, proportion, with_interval
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.models.features import check_features, choose_layers
from trustml_cli.models.model import Model, require_images
from trustml_cli.ood.detector import Detector, FittedState
from trustml_cli.ood.dknn import DeepNearestNeighbours, Support, neighbour_attack
from trustml_cli.ood.separation import separation, separation_intervals
from trustml_cli.plots.credibility import (
    Judged,
    all_of,
    auroc_bars,
    credibility_curves,
    nearest_images,
    reliability,
    support_by_layer,
)
from trustml_cli.system.errors import InputError, prefix_errors
from trustml_cli.system.hardware import Hardware, seeded
from trustml_cli.system.progress import Progress
from trustml_cli.system.ranges import require
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.detection import fit_detectors, layers_of, looked_at, obstacle_to, outliers_of
from trustml_cli.tasks.robustness import check_gradient_access, fit_attack, resolve_target
from trustml_cli.training.inputs import input_spec
from trustml_cli.training.predict import BATCH
from trustml_cli.training.trainer import Trainer

DKNN, CLEAN, NOISY, ROTATED, ADAPTIVE = "dknn", "clean", "noisy", "rotated", "adaptive"
LEVEL = 0.05  # of the p-values that are checked
FEWEST = 100  # with fewer clean images, that check is undecided


@dataclass(frozen=True, kw_only=True)
class Credibility:
    """Measure how the neighbours support the answers for `images` random test images (None: all) and changed ones.

    The `k` nearest of `references` training images in each of `layers` vote (see `DeepNearestNeighbours`);
    `calibration` training images are held out before training to say how many votes are usual. The images are also
    noisy (Gaussian, standard deviation `std`), rotated by `rotation` degrees, attacked within `epsilon` by the
    attack, which does not know of the neighbours, and by one that does (`adaptive_steps` steps, L∞); the images of
    `ood_dataset` are unseen. The rivals are detectors. A credibility of at most `significance` is flagged; neighbours
    are deceived where their answer is wrong and not flagged. `examples`
    images of each kind are shown with their `shown` nearest references.
    """

    columns: ClassVar[Columns] = (
        *conditions("images"),
        *sometimes(conditions("epsilon")),
        *sometimes((*logged(higher("accuracy")), *logged(higher("dknn_accuracy")), *logged(lower("deceived_rate")))),
        *logged(neither("mean_credibility")),
        *neither("mean_confidence", "flagged_rate"),
        *sometimes((*headline(higher("auroc")), *higher("auroc_{detector}"))),
    )

    k: int
    layers: list[str]
    references: int
    calibration: int
    images: int | None
    std: float
    rotation: float
    epsilon: float
    adaptive_steps: int
    ood_dataset: list[str] | None
    significance: float
    examples: int
    shown: int

    def __post_init__(self) -> None:
        require(self, "k", "references", "calibration", "adaptive_steps", "examples", "shown", at_least=1)
        require(self, "images", at_least=1)
        require(self, "std", "epsilon", above=0)
        require(self, "rotation", above=0, below=360)
        require(self, "significance", above=0, below=1)

    def __call__(
        self,
        context: Context,
        dataset: DatasetSource,
        model: Model,
        trainer: Trainer,
        attack: Attack,
        detector: Mapping[str, Detector],
        outliers: Mapping[str, DatasetSource],
        defence: Defence,
    ) -> None:
        """Write one row for each kind of images, then the checks and the plots."""
        if DKNN in detector:
            raise InputError("detector: dknn is what the task measures; name its rivals, such as [msp,knn]")
        if attack.norm is not Norm.linf:
            raise InputError("attack.norm: must be linf, as that of the adaptive attack")
        if taken := {CLEAN, NOISY, ROTATED, ADAPTIVE, context.record.choices["attack"]} & set(outliers):
            raise InputError(f"task.ood_dataset: {min(taken)} is the name of other images here; choose another")
        dknn = DeepNearestNeighbours(k=self.k, layers=self.layers, references=self.references)
        detectors = {DKNN: dknn, **detector}
        data = context.load(dataset)
        with prefix_errors("dataset"):
            require_images(input_spec(data))
        if 2 * self.calibration > len(data.train):
            most = len(data.train) // 2
            raise InputError(f"task.calibration: must be at most {most}, half of the training images")
        unseen = {name: outliers_of(context, name, source, data, dataset.limit) for name, source in outliers.items()}
        data, held_out = split_validation(data, self.calibration / len(data.train), context.seed)
        attack, test = self.prepare(context, data, model, attack, detectors, defence)

        network = context.train_or_load(context.spec(data, model, trainer, defence=defence)).network
        learned = fit_detectors(network, data.train, held_out, detectors, context)
        attack, _ = fit_attack(context, attack, network, data)
        kinds = {CLEAN: test, **self.changed(context, network, attack, test, learned[DKNN])}
        labels = dict.fromkeys(kinds, test.labels)
        kinds |= {name: random_subset(split, len(test), context.seed) for name, split in unseen.items()}
        judged = {name: judge(network, split, detectors, learned, context.hardware) for name, split in kinds.items()}
        self.write_rows(context, judged, labels)
        check_validity(context, judged[CLEAN], test.labels)
        self.plot(context, judged, labels, random_subset(data.train, self.references, context.seed), data)

    def prepare(
        self,
        context: Context,
        data: Dataset,
        model: Model,
        attack: Attack,
        detectors: Mapping[str, Detector],
        defence: Defence,
    ) -> tuple[Attack, Split]:
        """The attack with its target as a class number, and the test images; checked before anything is trained."""
        attack, test = resolve_target(attack, data)
        x = torch.rand(2, *data.shape)
        with prefix_errors("model"), seeded(context.seed):
            fresh = defence.around(model.build(input_spec(data)), data.shape).eval()
            check_features(fresh, x)
        with prefix_errors("attack"):
            attack.check(fresh, data.shape)
            check_gradient_access(attack, fresh, data.shape)
        context.require_gradients(data, model, "task.adaptive_steps")
        for name, one in detectors.items():
            with prefix_errors("task" if name == DKNN else f"detector.{name}"):
                one.check(len(data.train))
                one.layers_of(fresh, x)
                if (obstacle := obstacle_to(one, fresh, True, x)) is not None:
                    raise ValueError(obstacle)
        return attack, test if self.images is None else random_subset(test, self.images, context.seed)

    def changed(
        self, context: Context, network: nn.Module, attack: Attack, test: Split, learned: FittedState
    ) -> dict[str, InMemory]:
        """The test images noisy, rotated, attacked, and attacked by the adaptive attack."""
        parts: dict[str, list[Tensor]] = {}
        stream = batches(test, BATCH, context.hardware.device)
        with seeded(context.seed):
            for x, y in Progress(stream, total=-(-len(test) // BATCH), desc="attacking", unit="batch"):
                names = choose_layers(network, x[:1], self.layers)
                versions = {
                    NOISY: (x + self.std * torch.randn_like(x)).clamp(0, 1),
                    ROTATED: rotate(x, self.rotation, InterpolationMode.BILINEAR),
                    context.record.choices["attack"]: attack(network, x, y, self.epsilon),
                    ADAPTIVE: neighbour_attack(
                        network, x, y, learned, names, self.k, self.epsilon, self.adaptive_steps
                    ),
                }
                for name, images in versions.items():
                    parts.setdefault(name, []).append(images.cpu())
        return {name: InMemory(torch.cat(images), test.labels) for name, images in parts.items()}

    def write_rows(self, context: Context, judged: Mapping[str, Judged], labels: Mapping[str, Tensor]) -> None:
        """One row for each kind of images, and the check that the adaptive attack is the stronger one."""
        attack = context.record.choices["attack"]
        areas: dict[str, dict[str, tuple[float, float, float]]] = {}
        for name, result in judged.items():
            support, right = result.support, labels.get(name)
            row: dict[str, object] = {}
            if right is not None:
                row |= proportion("accuracy", int((result.predicted == right).sum()), len(right))
                row |= proportion("dknn_accuracy", int((support.predicted == right).sum()), len(right))
                row |= proportion("deceived_rate", self.deceived(support, right), len(right))
            row |= average("mean_credibility", support.credibility) | average("mean_confidence", support.confidence)
            flagged = int((support.credibility <= self.significance).sum())
            row |= proportion("flagged_rate", flagged, len(support.credibility))
            if name != CLEAN:
                areas[name] = areas_under(judged[CLEAN], result, context.seed)
                for score, (value, low, high) in areas[name].items():
                    key = "auroc" if score == DKNN else f"auroc_{score}"
                    n = len(judged[CLEAN].predicted) + len(result.predicted)
                    row |= with_interval(key, value, (low, high), n)
            budget = {"epsilon": self.epsilon} if name in (attack, ADAPTIVE) else {}
            context.record.metrics({"images": name, **budget}, **row)
        plain, adaptive = (self.deceived(judged[one].support, labels[one]) for one in (attack, ADAPTIVE))
        figure = f"it deceives the neighbours with {adaptive} images, {attack} with {plain}"
        context.record.check("the attack that knows the neighbours is the stronger one", adaptive >= plain, figure)
        context.record.plot("auroc", auroc_bars(areas, context.record.subject))

    def deceived(self, support: Support, labels: Tensor) -> int:
        """The number of images whose neighbours' answer is wrong and not flagged."""
        return int(((support.predicted != labels) & (support.credibility > self.significance)).sum())

    def plot(
        self, context: Context, judged: Mapping[str, Judged], labels: Mapping[str, Tensor], references: Split,
        data: Dataset,
    ) -> None:  # fmt: skip
        """Save what was found for each image, and plot it by kind of images and by layer, with some neighbours."""
        context.record.artifact(
            "credibility", {key: value for name in judged for key, value in kept(name, judged[name])}
        )
        subject = context.record.subject
        x, y = next(batches(references, len(references), torch.device("cpu")))
        names = judged[CLEAN].layers
        context.record.plot("credibility", credibility_curves(judged, self.significance, subject))
        context.record.plot("layers", support_by_layer(judged, subject))
        context.record.plot("reliability", reliability({name: judged[name] for name in labels}, labels[CLEAN], subject))
        some = dict(list(enumerate(names))[:: -(-len(names) // 4)])
        rows = [
            (name, result, number, int(labels[name][number]) if name in labels else None)
            for name, result in judged.items()
            for number in range(self.examples)
        ]
        context.record.plot("neighbours", nearest_images(rows, self.shown, x, y, some, data.classes, subject))


def judge(
    network: nn.Module,
    split: Split,
    detectors: Mapping[str, Detector],
    learned: Mapping[str, FittedState],
    hardware: Hardware,
) -> Judged:
    """What the network, its neighbours (the detector `dknn`) and the other detectors say about a split's images."""
    dknn = detectors[DKNN]
    assert isinstance(dknn, DeepNearestNeighbours)
    seen, layers = [], layers_of(network, split, detectors, hardware)
    for x, outputs, _ in looked_at(network, split, layers, hardware, "scoring"):
        support = dknn.support(outputs.only(layers[DKNN]), learned[DKNN])
        scores = {
            name: one.score(x, outputs.only(layers[name]), learned[name])
            for name, one in detectors.items()
            if name != DKNN
        }
        predicted = outputs.logits.argmax(1).cpu()
        agreeing = (learned[DKNN]["labels"].cpu()[support.neighbours] == predicted[:, None]).double().mean(2)
        confidence = outputs.logits.softmax(1).amax(1).cpu()
        seen.append(Judged(x.cpu(), predicted, confidence, layers[DKNN], support, agreeing, scores))
    return all_of(seen)


def kept(name: str, result: Judged) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one kind of images: answers, credibility and confidence, [N], and the latter [L, N] by layer."""
    support = result.support
    yield f"{name}.predicted", result.predicted
    yield f"{name}.dknn_predicted", support.predicted
    yield f"{name}.credibility", support.credibility
    yield f"{name}.confidence", support.confidence
    second, largest = support.by_layer.topk(2, dim=2).values.flip(2).unbind(2)
    yield f"{name}.credibility_by_layer", largest
    yield f"{name}.confidence_by_layer", 1 - second
    yield from ((f"{name}.{score}", values) for score, values in result.scores.items())


def areas_under(clean: Judged, other: Judged, seed: int) -> dict[str, tuple[float, float, float]]:
    """The AUROC of each score, of other images against clean ones, with the ends of its 95 % bootstrap interval."""
    pairs = {DKNN: (-clean.support.credibility, -other.support.credibility)}
    pairs |= {name: (clean.scores[name], other.scores[name]) for name in clean.scores}
    return {
        name: (separation(*pair).auroc, *separation_intervals(*pair, seed)["auroc"]) for name, pair in pairs.items()
    }


def check_validity(context: Context, clean: Judged, labels: Tensor) -> None:
    """Check that the p-value of the true class of clean images is at most `LEVEL` for no more than that share of them.

    It holds within three standard errors where calibration and test images come from one distribution; undecided for
    fewer than `FEWEST` images.
    """
    own = clean.support.p_values.gather(1, labels[:, None])[:, 0]
    share, n = (own <= LEVEL).double().mean().item(), len(labels)
    holds = share <= LEVEL + 3 * sqrt(LEVEL * (1 - LEVEL) / n) if n >= FEWEST else None
    context.record.check(
        "p-values of the true classes are valid on clean images",
        holds,
        f"{in_percent(share)} are at most {LEVEL}, n = {n:,}",
    )
