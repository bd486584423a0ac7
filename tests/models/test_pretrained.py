"""Pretrained networks as they are: classes matched by name, the weights' own preprocessing, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from tests.helpers import FRESH, Cli
from trustml_cli.models.model import InputSpec, Normalization
from trustml_cli.models.pretrained import SelectClasses, as_published, match_classes
from trustml_cli.models.vision import TorchvisionModel

IMAGENET = TorchvisionModel(
    name="mobilenet_v3_small", weights="imagenet", preprocess=False, classes=None,
    normalization=Normalization.none, **FRESH,
)  # fmt: skip
OFFERED = [["tench, Tinca tinca"], ["tabby_cat"], ["Egyptian Cat", "n02124075"], ["crane"], ["Crane"]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """torch's hub folder with random weights under the name of mobilenet_v3_small's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state: dict[str, torch.Tensor] = models.mobilenet_v3_small(weights=None).state_dict()
    torch.save(state, folder / "mobilenet_v3_small-047dcff4.pth")
    return state


@pytest.mark.parametrize(
    ("wanted", "given", "groups"),
    [
        (["Tabby Cat", "tench"], {}, [[1], [0]]),  # in the data set's order, whatever the spelling
        (["tinca-tinca", "n02124075"], {}, [[0], [2]]),
        (["cat", "fish"], {"cat": ["tabby cat", "egyptian cat", 1], "fish": 0}, [[1, 2], [0]]),
        (["fish", "tabby cat"], {"fish": "TENCH"}, [[0], [1]]),
        (["egyptian cat, mau", "tench, tinca"], {}, [[2], [0]]),  # by a synonym
        (["Tench", "tabby cat", "Mau, Egyptian cat", "crane", "crane"], {}, [[0], [1], [2], [3], [4]]),
        ([names[0] for names in OFFERED], {}, [[0], [1], [2], [3], [4]]),  # the same list, though crane stands twice
    ],
)
def test_classes_are_matched_by_name(wanted: list[str], given: dict[str, Any], groups: list[list[int]]) -> None:
    assert match_classes(wanted, OFFERED, given) == groups


def test_outputs_without_names_are_taken_in_order_or_by_number() -> None:
    assert match_classes(["a", "b"], [[], []], {}) == [[0], [1]]
    assert match_classes(["a", "b"], [[], [], []], {"a": 2, "b": [0, 1]}) == [[2], [0, 1]]


@pytest.mark.parametrize(
    ("wanted", "offered", "given", "message"),
    [
        (["cat", "dog", "tench"], OFFERED, {},
         "classes: the network does not know 2 of the 3 classes (cat, dog); it knows tench, Tinca tinca, tabby_cat, "
         "Egyptian Cat, …; say which is which, as in 'model.classes={cat:[NAME,NAME]}'"),
        (["tench", "crane"], OFFERED, {}, "classes: the network has several outputs for a class (crane)"),
        (["tench", "tinca tinca"], OFFERED, {}, "classes: the network has one output for several classes (tench, "),
        (["a", "tench"], OFFERED, {"a": [1, 0]}, "classes: the network has one output for several classes (a, tench)"),
        (["cat", "dog"], [[], [], []], {}, "classes: the network has 3 outputs without names, and the data set 2"),
        (["a", "tench"], OFFERED, {"a": "taby cat"}, "classes: the network has no class 'taby cat'; near it are tabby"),
        (["a", "tench"], OFFERED, {"a": 5}, "classes: the network has no class 5"),
        (["tench"], OFFERED, {"trench": 0}, "classes: the data set has no class 'trench'; it has tench"),
    ],
)  # fmt: skip
def test_classes_that_do_not_match_are_named(
    wanted: list[str], offered: list[list[str]], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        match_classes(wanted, offered, given)


def test_the_logit_of_a_group_stands_for_the_sum_of_its_probabilities() -> None:
    logits = torch.randn(4, 5)
    together = logits.softmax(1)[:, [2, 0, 1]]
    summed = torch.stack([together[:, 0], together[:, 1:].sum(1)], dim=1)
    torch.testing.assert_close(SelectClasses([[2], [0, 1]])(logits).softmax(1), summed / summed.sum(1, keepdim=True))
    assert torch.equal(SelectClasses([[3], [1]])(logits), logits[:, [3, 1]])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_as_it_is_does_what_its_weights_expect_and_leads_gradients_to_the_pixels(
    hub: dict[str, torch.Tensor], channels: int
) -> None:
    inputs = InputSpec((channels, 40, 40), 2, (0.5,) * channels, (1.0,) * channels, ("goldfish", "tench"))
    network = as_published(IMAGENET).build(inputs)
    pretrained = models.mobilenet_v3_small(weights=None).eval()
    pretrained.load_state_dict(hub)
    x = torch.rand(2, channels, 40, 40, requires_grad=True)
    transforms = models.MobileNet_V3_Small_Weights.DEFAULT.transforms()
    expected = pretrained(transforms(x.detach().expand(-1, 3, -1, -1)))[:, [1, 0]]
    torch.testing.assert_close(network(x), expected)
    network(x).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).float().mean() > 0.5


def test_preprocessing_in_front_of_a_new_head_where_it_is_asked_for(hub: dict[str, torch.Tensor]) -> None:
    model = TorchvisionModel(**{**vars(IMAGENET), "preprocess": True})
    x = torch.rand(1, 1, 40, 40)
    transforms = models.MobileNet_V3_Small_Weights.DEFAULT.transforms()
    first = model.build(InputSpec((1, 40, 40), 7, (0.5,), (1.0,))).get_submodule("normalize")
    torch.testing.assert_close(first(x), transforms(x.expand(-1, 3, -1, -1)))


def test_a_model_without_published_weights_is_not_changed() -> None:
    random = TorchvisionModel(**{**vars(IMAGENET), "weights": None})
    assert as_published(random) is random


WITH_WEIGHTS = ("model=torchvision", "model.weights=imagenet")
NAMES = "model.classes={0:tench,1:[goldfish,hen],2:3,3:4,4:5,5:6,6:7,7:8,8:9,9:10}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=fgsm"], "trainer: none trains nothing, and this model has random weights; give model.checkpoint=FILE"),
        (["task=fgsm", *WITH_WEIGHTS], "model.classes: the network does not know 10 of the 10 classes (0, 1, 2, …); it "
         "knows tench, goldfish, great white shark, …;"),
        (["task=backdoor", *WITH_WEIGHTS, NAMES], "trainer: a backdoor is planted in training, and none"),
        (["task=ood", *WITH_WEIGHTS, NAMES], "task.holdout: a network that is taken as it is was trained on all"),
    ],
)  # fmt: skip
def test_what_has_to_be_trained_is_refused(
    trustml: Cli, hub: dict[str, torch.Tensor], words: list[str], message: str
) -> None:
    answer = trustml(*words, "trainer=none", "dataset.limit=50")
    assert answer.returncode == 2, answer.stderr
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_weights_that_are_not_on_this_machine(trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    answer = trustml("task=fgsm", "trainer=none", *WITH_WEIGHTS)
    assert answer.returncode == 2
    assert "weights: imagenet for mobilenet_v3_small could not be read or downloaded (no network); put" in answer.stderr
    assert str(tmp_path / "hub" / "checkpoints") in answer.stderr
