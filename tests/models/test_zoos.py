"""Model zoos: networks of timm and of hub folders, as they are or with a new head; nothing in a folder is run."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import to_pil_image

from tests.helpers import FRESH, Cli, facts, metrics, newest, save_classifier
from trustml_cli.models.huggingface import HuggingFaceModel
from trustml_cli.models.model import InputSpec, Model, Normalization
from trustml_cli.models.pretrained import as_published
from trustml_cli.models.robustbench_model import Benchmark, RobustBenchModel, ThreatModel
from trustml_cli.models.timm_model import TimmModel, names_of

PLAIN = {"preprocess": False, "classes": None, "normalization": Normalization.none, **FRESH}
DIGITS = InputSpec((1, 8, 8), 10, (0.5,), (0.25,), tuple("0123456789"))
COLOUR = InputSpec((3, 40, 30), 10, (0.5,) * 3, (0.25,) * 3, tuple("0123456789"))
REVERSED = {f"_{number}": str(9 - number) for number in range(10)}


def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def gradient(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(network(x.requires_grad_()).square().sum(), x)
    return found


class TestHuggingFace:
    @pytest.fixture(autouse=True)
    def package(self) -> None:
        pytest.importorskip("transformers")

    def model(self, folder: Path) -> Model:
        return HuggingFaceModel(id=str(folder), **PLAIN)

    def test_as_it_is_it_does_what_transformers_does_and_classes_are_matched(self, tmp_path: Path) -> None:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        save_classifier(tmp_path, preprocessing=True, **REVERSED)
        network = as_published(self.model(tmp_path)).build(COLOUR)
        bytes_of = torch.randint(60, 200, (2, 3, 40, 30), dtype=torch.uint8)  # bicubic passes 0 and 255 where it may
        pictures: list[Image.Image] = [to_pil_image(each) for each in bytes_of]
        processed = AutoImageProcessor.from_pretrained(tmp_path)(pictures, return_tensors="pt")
        x = bytes_of / 255
        seen = network[0](x)
        torch.testing.assert_close(seen, processed["pixel_values"], atol=0.03, rtol=0)  # theirs round to bytes
        theirs = AutoModelForImageClassification.from_pretrained(tmp_path)(seen).logits
        torch.testing.assert_close(network(x), theirs.flip(1))
        assert gradient(network, x).abs().sum() > 0

    def test_a_folder_without_preprocessing_and_names_is_taken_in_the_data_set_s_order(self, tmp_path: Path) -> None:
        from transformers import AutoModelForImageClassification

        save_classifier(tmp_path)
        x = torch.rand(2, 1, 8, 8)
        theirs = AutoModelForImageClassification.from_pretrained(tmp_path)(x.expand(-1, 3, -1, -1)).logits
        torch.testing.assert_close(as_published(self.model(tmp_path)).build(DIGITS)(x), theirs)

    def test_the_new_head_has_an_output_for_each_class_on_the_pretrained_body(self, tmp_path: Path) -> None:
        save_classifier(tmp_path)
        state = self.model(tmp_path).build(InputSpec((1, 8, 8), 4, (0.5,), (0.25,))).network[1].body.state_dict()
        saved = load_file(tmp_path / "model.safetensors")
        differ = {name for name, tensor in saved.items() if state[name].shape != tensor.shape}
        assert differ == {"classifier.1.weight", "classifier.1.bias"}
        assert all(torch.equal(state[name], saved[name]) for name in saved.keys() - differ)

    def test_a_hub_folder_is_attacked_as_it_is(self, trustml: Cli, tmp_path: Path) -> None:
        save_classifier(tmp_path / "hub", preprocessing=True, **REVERSED)
        words = ("trainer=none", "model=huggingface", "model.id=hub", "model.classes={0:9}", "dataset.limit=6")
        answer = trustml("task=fgsm", *words, "task.epsilon=0.1", "task.check_images=2")
        assert answer.returncode == 0, answer.stderr
        assert answer.stderr == ""  # no bar, no warning
        assert metrics(newest(tmp_path)).clean_accuracy_n.tolist() == [6]
        assert facts(newest(tmp_path))["model_key"].startswith("published ")

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ("code", "custom code"),
            ("pickle", "model.safetensors"),
            ("headless", "no classifier"),
            ("absent", "is not in"),
        ],
    )
    def test_what_is_no_safe_classifier_is_refused_and_nothing_is_run(
        self, trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
    ) -> None:
        folder = tmp_path / "hub"
        save_classifier(folder)
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(0)\n")
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        if fault == "code":
            remote = {"AutoConfig": "evil.C", "AutoModelForImageClassification": "evil.M"}
            (folder / "config.json").write_text(json.dumps(config | {"model_type": "strange", "auto_map": remote}))
        if fault == "pickle":
            torch.save(weights, folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()
        if fault == "headless":
            body = {name: value for name, value in weights.items() if "classifier" not in name}
            save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
        without_network(monkeypatch)
        name = "hub" if fault != "absent" else "somebody/absent"
        answer = trustml("task=fgsm", "trainer=none", "model=huggingface", f"model.id={name}")
        assert answer.returncode == 2
        assert answer.stderr.startswith("trustml: error: model.id: ")
        assert answer.stderr.count("\n") == 1
        assert message in answer.stderr
        assert not (tmp_path / "ran").exists()


class TestTimm:
    @pytest.fixture(autouse=True)
    def package(self) -> None:
        pytest.importorskip("timm")

    def test_the_preprocessing_is_the_one_of_timm(self) -> None:
        from timm import get_pretrained_cfg
        from timm.data import create_transform, resolve_data_config

        config = resolve_data_config(pretrained_cfg=get_pretrained_cfg("test_resnet.r160_in1k").to_dict())
        picture = torch.randint(0, 256, (3, 200, 180), dtype=torch.uint8)
        theirs = create_transform(**config)(to_pil_image(picture))
        ours = TimmModel(name="test_resnet.r160_in1k", pretrained=True, **PLAIN).preprocessing()(picture[None] / 255)
        torch.testing.assert_close(ours[0], theirs, atol=0.03, rtol=0)  # theirs round to bytes in between
        assert ours.shape == (1, 3, 160, 160)

    def test_as_it_is_its_own_head_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import timm

        random = timm.create_model("test_resnet", pretrained=False).eval()
        monkeypatch.setattr(timm, "create_model", lambda name, pretrained: random if pretrained else None)
        names = ("n01443537", "Tench")  # goldfish by its synset, and the first class by its word
        network = as_published(TimmModel(name="test_resnet.r160_in1k", pretrained=True, **PLAIN)).build(
            InputSpec((3, 40, 40), 2, (0.5,) * 3, (0.25,) * 3, names)
        )
        x = torch.rand(2, 3, 40, 40)
        torch.testing.assert_close(network(x), random(network[0](x))[:, [1, 0]])
        assert gradient(network, x).abs().sum() > 0

    def test_a_network_of_one_size_says_how_others_reach_it(self) -> None:
        small = TimmModel(name="test_vit", pretrained=False, **PLAIN)
        with pytest.raises(ValueError, match=r"^cannot take inputs of shape 1×8×8 .*; model\.preprocess=true scales"):
            small.build(DIGITS)
        assert replace(small, preprocess=True).build(DIGITS)(torch.rand(2, 1, 8, 8)).shape == (2, 10)

    def test_outputs_that_are_no_imagenet_have_no_names(self) -> None:
        import timm

        assert names_of(timm.create_model("test_resnet", num_classes=7)) == [[]] * 7

    @pytest.mark.faults
    def test_a_network_of_timm_is_trained(self, trustml: Cli, tmp_path: Path) -> None:
        answer = trustml("task=train", "model=timm", "model.name=test_resnet", "trainer=smoke", "dataset.limit=300")
        assert answer.returncode == 0, answer.stderr
        assert metrics(newest(tmp_path)).test_accuracy.item() > 0.2

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["model.name=resnet19"], "model.name: timm has no model 'resnet19'; near it are resnet18"),
            (["model.name=hf-hub:somebody/net"], "model.name: timm has no model 'hf-hub:somebody/net'; near it are"),
            (["model.name=resnet18.xx"], "model.name: timm has no weights 'xx' of resnet18; there are a1_in1k"),
            (
                ["model.name=test_resnet", "model.pretrained=true", "trainer=none"],
                "model.pretrained: the file of weights of test_resnet is not in",
            ),
        ],
    )
    def test_what_there_is_not(
        self, trustml: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
    ) -> None:
        without_network(monkeypatch)
        answer = trustml("task=fgsm", "model=timm", *words)
        assert answer.returncode == 2
        assert message in answer.stderr


ZOO = '''
import torch
from torch import nn

class Net(nn.Module):
    """A network of the zoo: its normalisation inside."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.4))
        self.register_buffer("sigma", torch.full((1, 3, 1, 1), 0.2))
        self.linear = nn.Linear(3, 10)

    def forward(self, x):
        return self.linear(((x - self.mu) / self.sigma).mean((2, 3)))
'''
FILES = {
    "__init__": "from robustbench.utils import load_model",
    "net": ZOO,
    "data": "class Steps:\n    transforms = []\n\ndef get_preprocessing(*words):\n    return Steps",
    "utils": """
import torch
from robustbench.net import Net

def download_gdrive_new(number, file):
    raise OSError("no network")

def load_model(name, folder, dataset, threat_model):
    net = Net()
    net.load_state_dict(torch.load(f"{folder}/{dataset}/{threat_model}/{name}.pt", weights_only=True))
    return net.eval()
""",
    "model_zoo": """
from enum import Enum
from types import SimpleNamespace

Dataset = Enum("Dataset", {"cifar_10": "cifar10", "imagenet": "imagenet"})
Threat = Enum("Threat", {"Linf": "Linf", "L2": "L2"})
enums = SimpleNamespace(BenchmarkDataset=Dataset, ThreatModel=Threat)
model_dicts = {Dataset.cifar_10: {Threat.Linf: {"Small": {"gdrive_id": "abc"}}}, Dataset.imagenet: {}}
""",
}
"""What of robustbench is used: the package itself cannot be installed beside the other packages of the tests."""


class TestRobustBench:
    @pytest.fixture(autouse=True)
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "packages" / "robustbench"
        folder.mkdir(parents=True)
        for name, text in FILES.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder.parent)
        for name in [name for name in sys.modules if name.partition(".")[0] == "robustbench"]:
            monkeypatch.delitem(sys.modules, name)

    def model(self, folder: Path, **changes: Any) -> RobustBenchModel:
        words = {"name": "Small", "benchmark": Benchmark.cifar10, "threat_model": ThreatModel.Linf}
        return RobustBenchModel(**{**words, "data_dir": folder, **PLAIN, **changes})

    def save(self, folder: Path, content: object = None) -> dict[str, torch.Tensor]:
        from robustbench.net import Net

        state: dict[str, torch.Tensor] = Net().state_dict()
        file = folder / "robustbench" / "cifar10" / "Linf" / "Small.pt"
        file.parent.mkdir(parents=True)
        torch.save(state if content is None else content, file)
        return state

    def test_it_answers_with_its_weights_and_normalisation_in_the_data_set_s_order(self, tmp_path: Path) -> None:
        state = self.save(tmp_path)
        network = as_published(self.model(tmp_path)).build(
            InputSpec((3, 8, 8), 2, (0.5,) * 3, (0.25,) * 3, ("truck", "cat"))
        )
        x = torch.rand(4, 3, 8, 8)
        expected = functional.linear((x.mean((2, 3)) - 0.4) / 0.2, state["linear.weight"], state["linear.bias"])
        torch.testing.assert_close(network(x), expected[:, [9, 3]])

    def test_a_file_that_would_run_code_is_not_loaded(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return print, ("run",)

        self.save(tmp_path, content=Trap())
        with pytest.raises(ValueError, match=r"^name: .*Small\.pt is not a weights-only file \("):
            as_published(self.model(tmp_path))

    def test_what_is_not_there_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(
            ValueError, match=r"^name: .*Small\.pt is not there and could not be downloaded \(no network\)"
        ):
            as_published(self.model(tmp_path))
        with pytest.raises(
            ValueError, match=r"^name: RobustBench has no 'Smal' for cifar10 and Linf; near it are Small$"
        ):
            self.model(tmp_path, name="Smal")
        with pytest.raises(ValueError, match=r"^is taken as it is only; add trainer=none$"):
            self.model(tmp_path).network(COLOUR)
        monkeypatch.setitem(sys.modules, "robustbench.model_zoo", None)
        with pytest.raises(ValueError, match=r"^needs robustbench .* install it from its repository"):
            self.model(tmp_path)
