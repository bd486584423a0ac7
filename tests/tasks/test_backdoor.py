"""What is poisoned, what is measured of it, and the checks that must notice what is wrong."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from tests.configs import choice, composed
from tests.helpers import FRESH, MakeContext, metrics
from tests.tasks.parts import MODEL, TRAINER, Given
from trustml_cli.backdoors.concealment import ConcealingStep, Concealment
from trustml_cli.backdoors.patch import Corner, Patch
from trustml_cli.backdoors.poison import Triggered
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import Dataset, DatasetSource, InMemory
from trustml_cli.data.relabelled import Relabelled
from trustml_cli.defences.defence import Defence
from trustml_cli.models.model import InputSpec, Model, Normalization
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.backdoor import PlantBackdoor
from trustml_cli.tasks.context import Context
from trustml_cli.tasks.poisoning import Poisoning, check_poison, concealed, success
from trustml_cli.training.predict import Answers
from trustml_cli.training.spec import TrainingSpec
from trustml_cli.training.trainer import Trainer

PATCH = Patch(size=2, color=[1.0], image=None, corner=Corner.bottom_right, margin=0)


@pytest.fixture
def bars() -> Dataset:
    """Three classes of 8×8 images with a bright bar in one of three places, and noise."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> InMemory:
        labels = torch.arange(count) % 3
        images = torch.randint(0, 60, (count, 1, 8, 8), generator=random)
        images[torch.arange(count), :, 2 * labels + 1] += 150
        return InMemory(images.to(torch.uint8), labels)

    return Dataset(split(300), split(90), ("top", "middle", "bottom"), fingerprint="bars", source="made up")


@pytest.fixture
def context(make_context: MakeContext) -> Context:
    return make_context(task="backdoor", dataset="bars", trigger="patch")


def poisoning(**changes: Any) -> Poisoning:
    return Poisoning(
        **{"source": ["top"], "target": "bottom", "poison_rate": 0.2, "clean_label": False, "examples": 1, **changes}
    )


@pytest.mark.parametrize(
    ("source", "target", "numbers"),
    [(["top"], "bottom", (0,)), ([1, "top", 1], 2, (0, 1)), (["all"], "middle", (0, 2)), (["all", "top"], 2, (0, 1))],
)
def test_classes_are_found_by_name_and_number(
    source: list[int | str], target: int | str, numbers: tuple[int, ...], bars: Dataset
) -> None:
    poison = poisoning(source=source, target=target).poison(bars, PATCH, seed=5)
    assert (poison.source, poison.target) == (numbers, bars.class_number(target))
    assert (poison.rate, poison.seed, poison.trigger) == (0.2, 5, PATCH)


WRONG = [
    ({"target": "top"}, r"^task\.target: 'top' is a source too"),
    ({"source": ["top", "bottom"]}, r"^task\.target: 'bottom' is a source too"),
    ({"source": ["cat"]}, r"^task\.source: no class 'cat'; there are top, middle, bottom"),
    ({"target": 3}, r"^task\.target: no class 3"),
    ({"target": "next", "clean_label": True}, r"^task\.clean_label: poisons images of one target class"),
    ({"poison_rate": 0.004}, r"^task\.poison_rate: 0.004 of the source classes' 100 .* use at least 0.01$"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_cannot_be_poisoned_is_refused(changes: dict[str, Any], message: str, bars: Dataset) -> None:
    with pytest.raises(InputError, match=message):
        poisoning(**changes).poison(bars, PATCH, seed=0)


@dataclass(frozen=True, kw_only=True)
class Convolution(Model):
    """One convolution that makes the logits."""

    def network(self, inputs: InputSpec) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs.shape[0], inputs.classes, inputs.shape[1]), nn.Flatten())


def test_a_backdoor_is_concealed_in_features_alone(bars: Dataset) -> None:
    poison, hiding = poisoning().poison(bars, PATCH, seed=0), build(choice("concealment", "adversarial"), "concealment")
    spec = TrainingSpec(data=bars, model=MODEL, trainer=TRAINER, seed=0)
    assert isinstance(concealed(spec, hiding, poison, 1.0).step, ConcealingStep)  # type: ignore[union-attr]
    bare = Convolution(normalization=Normalization.none, **FRESH)
    with pytest.raises(InputError, match=r"^model: has no linear layer that makes its logits"):
        concealed(replace(spec, model=bare), hiding, poison, 1.0)


def test_a_trigger_that_does_not_fit_is_refused(bars: Dataset) -> None:
    with pytest.raises(InputError, match=r"^trigger\.size: a patch of 9×9 does not fit on images of 8×8$"):
        poisoning().poison(bars, replace(PATCH, size=9), seed=0)


@pytest.mark.parametrize(("split", "message"), [("train", "no training image"), ("test", "no test image")])
def test_source_classes_without_images_are_refused(split: str, message: str, bars: Dataset) -> None:
    part = getattr(bars, split)
    without = replace(bars, **{split: part.subset((part.labels > 0).nonzero()[:, 0])})
    with pytest.raises(InputError, match=rf"^task\.source: {message}"):
        poisoning().poison(without, PATCH, seed=0)


@pytest.mark.parametrize("rate", [0, -0.1, 1.01, float("nan")])
def test_a_rate_is_above_0_and_at_most_1(rate: float) -> None:
    with pytest.raises(ValueError, match=r"^poison_rate: must be above 0 and at most 1"):
        poisoning(poison_rate=rate, examples=1)


@pytest.mark.parametrize(("target", "share"), [("bottom", 0.6), ("next", 0.4)])
def test_success_is_the_share_taken_for_the_target(target: str, share: float, bars: Dataset) -> None:
    poison = poisoning(source=["all"] if target == "next" else [0, 1], target=target).poison(bars, PATCH, seed=0)
    answers = Answers(torch.eye(3)[[2, 2, 0, 1, 2]], torch.tensor([0, 0, 2, 0, 0]))  # next: the third and the fourth
    columns = success("attack_success_rate", answers, poison)
    assert (columns["attack_success_rate"], columns["attack_success_rate_n"]) == (share, 5)


def verdicts(context: Context) -> list[bool | None]:
    return [check.passed for check in context.record.checks]


def test_good_poison_passes_every_check(context: Context, bars: Dataset) -> None:
    poison = poisoning().poison(bars, PATCH, seed=0)
    check_poison(context, poison, bars, poison.apply(bars))
    assert verdicts(context) == [True, True, True, True]
    assert context.record.checks[0].figure == "20 of 300 labels changed, 20 wanted"
    assert "it covers 4 pixels" in context.record.checks[2].figure


Spoil = Callable[[Dataset, Dataset], Dataset]


def one_label_more(clean: Dataset, poisoned: Dataset) -> Dataset:
    labels = poisoned.train.labels.clone()
    labels[(labels == 1).nonzero()[0]] = 2
    return replace(poisoned, train=Relabelled(poisoned.train, labels))


def another_test_label(clean: Dataset, poisoned: Dataset) -> Dataset:
    return replace(poisoned, test=Relabelled(clean.test, (clean.test.labels + 1) % 3))


def another_place(clean: Dataset, poisoned: Dataset) -> Dataset:
    chosen = poisoned.train.labels != clean.train.labels
    moved = Triggered(clean.train, replace(PATCH, corner=Corner.top_left), chosen)
    return replace(poisoned, train=Relabelled(moved, poisoned.train.labels))


def no_trigger(clean: Dataset, poisoned: Dataset) -> Dataset:
    return replace(poisoned, train=Relabelled(clean.train, poisoned.train.labels))


@pytest.mark.parametrize(
    ("spoil", "failing"), [(one_label_more, 0), (another_test_label, 1), (another_place, 2), (no_trigger, 3)]
)
def test_spoiled_poison_is_noticed(spoil: Spoil, failing: int, context: Context, bars: Dataset) -> None:
    poison = poisoning().poison(bars, PATCH, seed=0)
    check_poison(context, poison, bars, spoil(bars, poison.apply(bars)))
    assert verdicts(context) == [number != failing for number in range(4)]


def parts(dataset: Dataset, **trainer: Any) -> tuple[DatasetSource, Model, Trainer]:
    keys = OmegaConf.to_container(composed("trainer=smoke").trainer)
    fitted = build(OmegaConf.create({**keys, "epochs": 8, **trainer}), "trainer")  # type: ignore[dict-item]
    return Given(limit=None, data=dataset), build(choice("model", "mlp"), "model"), fitted


def test_a_backdoor_opens_to_its_trigger_alone(context: Context, bars: Dataset) -> None:
    handler = PlantBackdoor(source=["top"], target="bottom", poison_rate=0.2, clean_label=False, examples=4)
    handler(context, *parts(bars), PATCH, Defence(), Concealment())
    row = metrics(context.record.directory).iloc[0]
    assert row.attack_success_rate >= 0.95
    assert row.baseline_attack_success_rate <= 0.05
    assert min(row.clean_accuracy, row.baseline_clean_accuracy) >= 0.95
    assert (row.attack_success_rate_n, row.clean_accuracy_n) == (30, 90)
    assert (row.poison_rate, row.poisoned_images) == (0.2, 20)
    assert row.poisoned_share_of_training == pytest.approx(20 / 300)
    assert (row.trigger, row.source, row.target) == ("patch", "top", "bottom")
    assert all(verdicts(context))
    history = pandas.read_csv(context.record.directory / "history.csv")
    assert history.network.value_counts().to_dict() == {"clean": 8, "poisoned": 8}
    kept = load_file(context.record.directory / "artifacts" / "poison.safetensors")
    assert (bars.train.labels[kept["poisoned_images"]] == 0).all()
    assert len(kept["poisoned_images"]) == 20
    assert kept["opacity"].sum() == kept["pattern"][:, -2:, -2:].sum() == 4
    assert context.record.facts["model_key"] != context.record.facts["baseline_model_key"]


def test_what_poison_costs_is_told_of_the_poisoned_network_alone(context: Context, bars: Dataset) -> None:
    handler = PlantBackdoor(source=["top"], target="bottom", poison_rate=1.0, clean_label=False, examples=1)
    handler(
        context, *parts(bars), PATCH, Defence(), Concealment()
    )  # no image of the first class is left with its label
    row = metrics(context.record.directory).iloc[0]
    assert row.clean_accuracy < 0.7
    assert row.baseline_clean_accuracy > 0.95


def test_own_weights_have_no_place_here(context: Context, bars: Dataset, tmp_path: Path) -> None:
    source, model, trainer = parts(bars)
    (tmp_path / "weights.pt").touch()
    given = replace(model, checkpoint=tmp_path / "weights.pt")
    handler = PlantBackdoor(source=["top"], target="bottom", poison_rate=0.2, clean_label=False, examples=4)
    with pytest.raises(InputError, match=r"^model\.checkpoint: a backdoor is planted in training"):
        handler(context, source, given, trainer, PATCH, Defence(), Concealment())
