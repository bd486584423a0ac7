"""torchvision's networks: stems, frozen bodies, heads, grey images, and pretrained weights from torch's folder."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from tests.helpers import FRESH
from trustml_cli.models.blur import Pooling
from trustml_cli.models.checkpoint import load_checkpoint
from trustml_cli.models.model import InputSpec, Model, Normalization
from trustml_cli.models.norm import Norm
from trustml_cli.models.vision import FirstOutput, ResNet18, TorchvisionModel, linear_head, replace_last_linear
from trustml_cli.system.errors import InputError

RESNET = ResNet18(
    norm=Norm.batch,
    pooling=Pooling.plain,
    weights=None,
    freeze=False,
    head=[],
    normalization=Normalization.none,
    **FRESH,
)
SMALL = TorchvisionModel(
    name="mobilenet_v3_small", weights=None, preprocess=False, classes=None, normalization=Normalization.none, **FRESH
)


def inputs(*shape: int) -> InputSpec:
    return InputSpec(shape, 10, mean=(0.5,) * shape[0], std=(1.0,) * shape[0])


def body(network: nn.Module) -> nn.Module:
    """The ResNet inside, which follows the repetition of grey channels where there is one."""
    return network.network[-1]


@pytest.mark.parametrize(
    ("shape", "channels", "kernel", "stride", "pooling"),
    [
        ((3, 32, 32), 3, 3, 1, nn.Identity),
        ((1, 64, 64), 1, 3, 1, nn.Identity),
        ((3, 65, 40), 3, 7, 2, nn.MaxPool2d),
        ((1, 65, 65), 3, 7, 2, nn.MaxPool2d),
    ],
)
def test_the_stem_is_3x3_up_to_64_px_and_torchvision_s_above(
    shape: tuple[int, ...], channels: int, kernel: int, stride: int, pooling: type[nn.Module]
) -> None:
    resnet = body(RESNET.build(inputs(*shape)))
    stem = resnet.conv1
    assert stem.weight.shape == (64, channels, kernel, kernel)
    assert (stem.stride, stem.padding) == ((stride, stride), (kernel // 2, kernel // 2))
    assert type(resnet.maxpool) is pooling


def test_the_number_of_weights_is_the_published_one() -> None:
    count = sum(weight.numel() for weight in RESNET.build(inputs(3, 32, 32)).parameters())
    # torchvision's 11,689,512, with a stem of 3·3·3·64 for 3·7·7·64 and a head of 10 classes for 1000
    assert count == 11_689_512 - 9_408 + 1_728 - 990 * 513 == 11_173_962


@pytest.mark.parametrize("model", [RESNET, SMALL], ids=["resnet18", "torchvision"])
def test_a_grey_image_is_seen_as_three_equal_channels(model: ResNet18 | TorchvisionModel) -> None:
    network = model.build(inputs(1, 65, 65)).eval()
    grey = torch.rand(2, 1, 65, 65)
    parts = [*network.network]
    on_colour = nn.Sequential(*parts[1:])(torch.cat([grey, grey, grey], dim=1))
    torch.testing.assert_close(network(grey), on_colour)


def test_random_weights_are_not_frozen() -> None:
    with pytest.raises(ValueError, match=r"^freeze: .*model\.weights"):
        replace(RESNET, freeze=True)


def test_frozen_layers_of_a_checkpoint_cannot_be_trained_anew(tmp_path: Path) -> None:
    own = tmp_path / "resnet18.pth"
    own.touch()
    with pytest.raises(InputError, match=r"^model\.freeze: .*model\.weights"):
        replace(RESNET, freeze=True, checkpoint=own).fresh()


@pytest.mark.parametrize("freeze", [True, False])
def test_freezing_trains_the_head_alone_and_keeps_the_statistics(freeze: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("trustml_cli.models.vision.pretrained", lambda *_: models.resnet18(weights=None))
    network = replace(RESNET, weights="imagenet", freeze=freeze).build(inputs(3, 64, 64)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD([w for w in network.parameters() if w.requires_grad], lr=0.1)
    network(torch.rand(4, 3, 64, 64)).logsumexp(1).sum().backward()
    optimizer.step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    head = {name for name in before if ".fc." in name}
    assert len(head) == 2
    assert moved == (head if freeze else set(before))


def test_the_head_has_a_linear_layer_for_each_width_and_the_classes() -> None:
    head = body(replace(RESNET, head=[256]).build(inputs(3, 32, 32))).fc
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [layer.weight.shape for layer in head[::2]] == [(256, 512), (10, 256)]
    assert [layer.weight.shape for layer in linear_head(9, [8, 7], 2)[::2]] == [(8, 9), (7, 8), (2, 7)]


def test_of_networks_with_auxiliary_logits_only_the_logits_are_returned() -> None:
    class WithAuxiliary(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return (x, x + 1) if self.training else x

    x = torch.rand(2, 3)
    for mode in (True, False):
        assert torch.equal(FirstOutput(WithAuxiliary()).train(mode)(x), x)


@pytest.mark.parametrize(
    ("model", "side"), [(RESNET, 65), (replace(SMALL, name="resnet18"), 32)], ids=["resnet18", "name"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_s_own_file_is_read(model: Model, side: int, channels: int, tmp_path: Path) -> None:
    own = models.resnet18(weights=None, num_classes=10).eval()
    torch.save(own.state_dict(), tmp_path / "resnet18.pth")
    network = model.build(inputs(channels, side, side))
    load_checkpoint(network, tmp_path / "resnet18.pth")
    x = torch.rand(2, channels, side, side)
    torch.testing.assert_close(network(x), own(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_where_torchvision_s_stem_does_not_fit_the_layer_is_named(tmp_path: Path) -> None:
    torch.save(models.resnet18(weights=None, num_classes=10).state_dict(), tmp_path / "resnet18.pth")
    message = r"conv1.weight is \[64, 3, 7, 7\], not \[64, 3, 3, 3\]$"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(RESNET.build(inputs(3, 32, 32)), tmp_path / "resnet18.pth")


def test_channels_that_are_neither_grey_nor_colour_are_refused() -> None:
    for model in (SMALL, RESNET):
        with pytest.raises(ValueError, match="cannot take inputs of shape 2×80×80"):
            model.build(inputs(2, 80, 80))


class TestPretrainedWeights:
    """From torch's hub folder, in which files of random weights lie here under torchvision's names."""

    @pytest.fixture(autouse=True)
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.download_url_to_file", self.no_network)
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        yield folder
        for path in folder.iterdir():
            path.unlink()

    @staticmethod
    def no_network(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    def test_resnet18_keeps_the_pretrained_stem_whatever_the_size(self, hub: Path) -> None:
        pretrained = models.resnet18(weights=None)
        torch.save(pretrained.state_dict(), hub / "resnet18-f37072fd.pth")
        network = replace(RESNET, weights="imagenet").build(inputs(1, 32, 32))
        body(network).fc = pretrained.fc = nn.Identity()
        grey = torch.rand(2, 1, 32, 32)
        colour = grey.repeat(1, 3, 1, 1)
        torch.testing.assert_close(network.network(grey), pretrained.eval()(colour))

    def test_another_model_keeps_all_but_the_last_linear_layer(self, hub: Path) -> None:
        pretrained = models.mobilenet_v3_small(weights=None).state_dict()
        torch.save(pretrained, hub / "mobilenet_v3_small-047dcff4.pth")
        built = replace(SMALL, weights="IMAGENET1K_V1").build(inputs(3, 32, 32)).network[0].body.state_dict()
        differ = [name for name in pretrained if not torch.equal(built[name], pretrained[name])]
        assert differ == ["classifier.3.weight", "classifier.3.bias"]
        assert built["classifier.3.weight"].shape == (10, 1024)

    @pytest.mark.parametrize("name", ["googlenet", "densenet121"])
    def test_the_architecture_is_the_one_that_the_weights_are_for(self, hub: Path, name: str) -> None:
        weights = models.get_model_weights(name).DEFAULT
        random = models.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
        old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])")  # as layers were called when DenseNet was published
        state = {
            old.sub(r"\1.\2", key): tensor
            for key, tensor in random.state_dict().items()
            if "num_batches_tracked" not in key
        }
        torch.save(state, hub / weights.url.rpartition("/")[2])
        published = replace(SMALL, name=name, weights="imagenet").published().network.eval()
        x = torch.rand(2, 3, 64, 64)
        own = models.get_model(name, weights=weights).eval()  # GoogLeNet's scales what is normalised for ImageNet anew
        torch.testing.assert_close(published(x), own(x))
        assert name == "densenet121" or not torch.allclose(published(x), random.eval()(x))

    def test_a_file_of_weights_runs_no_code(
        self, hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Shout:
            def __reduce__(self) -> Any:
                return print, ("code of the file",)

        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        torch.save({"conv1.weight": Shout()}, hub / "resnet18-f37072fd.pth")
        with pytest.raises(ValueError, match=r"^weights: imagenet for resnet18 could not be read .*Weights only"):
            replace(RESNET, weights="imagenet").build(inputs(3, 32, 32))
        assert "code of the file" not in capsys.readouterr().out
        assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"

    def test_what_cannot_be_downloaded_says_which_file_goes_where(self, hub: Path) -> None:
        with pytest.raises(ValueError, match=r"^weights: .*no network.*put resnet18-f37072fd.pth into .*hub"):
            replace(RESNET, weights="imagenet").build(inputs(3, 32, 32))

    def test_unknown_weights_are_refused_with_those_there_are(self) -> None:
        message = "^weights: no weights 'best' for resnet18; there are imagenet, IMAGENET1K_V1, DEFAULT"
        with pytest.raises(ValueError, match=message):
            replace(RESNET, weights="best").build(inputs(3, 32, 32))

    def test_a_model_without_a_linear_layer_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^weights: this model has no linear layer"):
            replace_last_linear(nn.Sequential(nn.Conv2d(3, 8, 1)), classes=10)
