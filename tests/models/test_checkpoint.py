"""Own weights: read back exactly, refused with a reason where they do not fit, and never run as code."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trustml_cli.models.checkpoint import load_checkpoint
from trustml_cli.models.dense import Mlp
from trustml_cli.models.model import InputSpec, Normalization

Weights = dict[str, Tensor]


def network(hidden: int = 5, shape: tuple[int, ...] = (1, 8, 8)) -> nn.Sequential:
    model = Mlp(normalization=Normalization.dataset, checkpoint=None, train=False, hidden=[hidden], dropout=0.0)
    return model.build(InputSpec(shape, 3, mean=(0.5,) * shape[0], std=(0.25,) * shape[0]))


def save_safetensors(weights: Weights, path: Path) -> Path:
    save_file(weights, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def save_pt(weights: Weights, path: Path) -> Path:
    torch.save(weights, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def save_pt_beside_other_facts(weights: Weights, path: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": weights}, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


@pytest.mark.parametrize("part", ["", "network"], ids=["the whole", "what follows the normalisation"])
@pytest.mark.parametrize("save", [save_safetensors, save_pt, save_pt_beside_other_facts])
def test_weights_come_back_exactly(save: Callable[[Weights, Path], Path], part: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new = network(), network()
    x = torch.rand(4, 1, 8, 8)
    assert not torch.equal(old(x), new(x))
    load_checkpoint(new, save(old.get_submodule(part).state_dict(), tmp_path / "weights"))
    assert torch.equal(old(x), new(x))


def without_the_last_bias(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if name != "network.3.bias"}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (network(hidden=6).state_dict(), r"network.1.weight is \[6, 64\], not \[5, 64\]"),
        (network(shape=(3, 8, 8)).state_dict(), r"normalize.mean is \[3\], not \[1\]"),
        (network(hidden=6).network.state_dict(), r"1.weight is \[6, 64\], not \[5, 64\]"),
        ({"network.0.conv.weight": torch.zeros(1)}, "it has network.0.conv.weight, the model has not"),
        (without_the_last_bias(network().state_dict()), "it lacks network.3.bias"),
    ],
)
def test_another_architecture_is_refused_by_the_first_tensor_that_differs(
    weights: Weights, message: str, tmp_path: Path
) -> None:
    target = network()
    before = {name: weight.clone() for name, weight in target.state_dict().items()}
    with pytest.raises(ValueError, match=rf"^checkpoint: .*weights.pt is of another architecture: {message}$"):
        load_checkpoint(target, save_pt(weights, tmp_path / "weights"))
    assert all(torch.equal(weight, before[name]) for name, weight in target.state_dict().items())


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.victim, "the code in the checkpoint ran")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip format", "legacy format"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(zipped: bool, tmp_path: Path) -> None:
    path, victim = tmp_path / "trap.pt", tmp_path / "victim.txt"
    content = {**network().state_dict(), "network.1.weight": Trap(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"is no weights-only file .*loading it could run code"):
        load_checkpoint(network(), path)
    assert not victim.exists()
    torch.load(path, weights_only=False)
    assert victim.exists(), "the trap does nothing: this test shows nothing"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"not weights", b"PK\x03\x04 no zip either", b".", b"\x80\x02a.", b"\x80\x04}.", bytes(range(256))],
)
def test_garbage_is_refused_by_the_name_of_the_file(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^checkpoint: .*garbage{suffix} "):
        load_checkpoint(network(), path)


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2), {"network.1.weight": 3.0}, {0: torch.zeros(2)}])
def test_a_file_without_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt holds no state_dict \(names to tensors\)"):
        load_checkpoint(network(), tmp_path / "other.pt")
