"""Own weights: read back exactly, refused with a reason where they do not fit, and never run as code."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.helpers import FRESH
from trustml_cli.models.checkpoint import load_checkpoint
from trustml_cli.models.dense import Mlp
from trustml_cli.models.model import InputSpec, Normalization

Weights = dict[str, Tensor]


def network(hidden: int = 5, shape: tuple[int, ...] = (1, 8, 8)) -> nn.Sequential:
    model = Mlp(normalization=Normalization.dataset, **FRESH, hidden=[hidden], dropout=0.0)
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


def prefixed(weights: Weights, start: str) -> Weights:
    return {f"{start}{name}": weight for name, weight in weights.items()}


RENAMES = "where only the names differ, say what they begin with .*model.checkpoint_prefix.*model.checkpoint_key: "


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            network(hidden=6).state_dict(),
            r"network.1.weight is \[6, 64\], not \[5, 64\], network.1.bias is .*, ",
        ),
        (network(shape=(3, 8, 8)).state_dict(), r"normalize.mean is \[3\], not \[1\], "),
        (network(hidden=6).network.state_dict(), r"1.weight is \[6, 64\], not \[5, 64\], "),
        (
            {f"body.c{n}.weight": torch.zeros(1) for n in range(4)},
            r"missing 1.weight, 1.bias, 3.weight, … \(4\); "
            rf"unexpected body.c0.weight, body.c1.weight, body.c2.weight, … \(4\); {RENAMES}the file itself",
        ),
        (without_the_last_bias(network().state_dict()), "missing network.3.bias; unexpected none; "),
        (
            {**prefixed(network().network.state_dict(), "model."), "loss.weight": torch.zeros(3)},
            r"unexpected model.1.weight, .*, … \(5\); to leave out the others, add model.checkpoint_prefix=model.$",
        ),
    ],
)
def test_another_architecture_is_refused_with_what_differs_and_a_remedy(
    weights: Weights, message: str, tmp_path: Path
) -> None:
    target = network()
    before = {name: weight.clone() for name, weight in target.state_dict().items()}
    with pytest.raises(ValueError, match=rf"^checkpoint: .*weights.pt is of another architecture: .*{message}"):
        load_checkpoint(target, save_pt(weights, tmp_path / "weights"))
    assert all(torch.equal(weight, before[name]) for name, weight in target.state_dict().items())


def test_weights_behind_a_normalisation_are_not_read_without_it(tmp_path: Path) -> None:
    model = Mlp(**{**FRESH, "normalization": Normalization.none}, hidden=[5], dropout=0.0)
    bare = model.build(InputSpec((1, 8, 8), 3, mean=(0.5,), std=(0.25,)))
    with pytest.raises(ValueError, match=r"unexpected normalize.mean, normalize.std; .*give model.normalization as it"):
        load_checkpoint(bare, save_pt(network().state_dict(), tmp_path / "weights"))


@pytest.mark.parametrize(
    ("mean", "std", "before"),
    [("mu", "sigma", ""), ("module.mu", "module.sigma", "module."), ("normalize.mean", "normalize.std", "model.")],
)
def test_a_normalisation_inside_the_weights_takes_the_place_of_ours(
    tmp_path: Path, mean: str, std: str, before: str
) -> None:
    old, new = network(), network()
    inside = {mean: torch.full((1, 1, 1, 1), 0.3), std: torch.full((1, 1, 1, 1), 0.7)}  # as RobustBench has them
    file = save_pt({**inside, **prefixed(old.get_submodule("network").state_dict(), before)}, tmp_path / "weights")
    assert "normalised by its own" in load_checkpoint(new, file)
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(new(x), old.get_submodule("network")((x - 0.3) / 0.7))


class Own(nn.Module):
    """A user's network whose attribute is called as a part of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 3, 8), nn.BatchNorm2d(3), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)  # type: ignore[no-any-return]


def saved_by_the_field(own: nn.Module) -> dict[str, object]:
    """What a network's weights look like in the files of the field's programs."""
    state = own.state_dict()
    other = {name: weight + 1 for name, weight in state.items()}
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert counters
    return {
        "as it is": state,
        "DataParallel": nn.DataParallel(own).state_dict(),
        "DataParallel inside": {name.replace("network.", "network.module."): each for name, each in state.items()},
        "compile": prefixed(state, "_orig_mod."),
        "compile of DataParallel": prefixed(state, "_orig_mod.module."),
        "averaged": torch.optim.swa_utils.AveragedModel(own).state_dict(),
        "Lightning": {"state_dict": prefixed(state, "model."), "callbacks": {"Best": {"score": torch.ones(1)}}},
        "Lightning, net": {"state_dict": prefixed(state, "net.model."), "loops": {}},
        "in a list": [state, {"state": {0: {"step": torch.ones(1)}}}],
        "torch 0.3": {name: each for name, each in state.items() if name not in counters},
        **{key: {key: state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}} for key in
           ("state_dict", "model_state_dict", "model", "net", "ema")},
        "entry within an entry": {"ema": {"decay": 0.99, "module": state}},
        "twice the same": {"model": state, "best": dict(state)},
        "another network beside it": {"teacher": {"fc.weight": torch.ones(3, 3)}, "model": state},
        "one by its key": {"model": other, "ema": state},
        "one by its prefix": {**prefixed(other, "student."), **prefixed(state, "teacher.")},
    }  # fmt: skip


HOW: dict[str, dict[str, str]] = {"one by its key": {"key": "ema"}, "one by its prefix": {"prefix": "teacher."}}


def own_network() -> nn.Sequential:
    return nn.Sequential(OrderedDict(normalize=nn.Identity(), network=Own())).eval()


@pytest.mark.parametrize("how", saved_by_the_field(Own()))
def test_what_the_field_writes_is_read(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, new, x = own_network(), own_network(), torch.rand(4, 1, 8, 8)
    old.network.network[1].running_mean.fill_(0.7)
    torch.save(saved_by_the_field(old.network)[how], tmp_path / "weights.pt")
    load_checkpoint(new, tmp_path / "weights.pt", **HOW.get(how, {}))
    assert torch.equal(old(x), new(x))


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ("one by its key", {}, "^checkpoint_key: .* has several networks that fit; use one of model, ema$"),
        ("one by its key", {"key": "best"}, "^checkpoint_key: .* has no weights in 'best'; it has model, ema$"),
        ("one by its prefix", {}, r"to leave out the others, add model.checkpoint_prefix=student\. or teacher\.$"),
        ("one by its prefix", {"prefix": "net."}, r"^checkpoint_prefix: no name in .* begins with 'net\.'$"),
    ],
)
def test_where_several_networks_fit_the_user_says_which(
    how: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    torch.save(saved_by_the_field(Own())[how], tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(own_network(), tmp_path / "weights.pt", **options)


def test_names_that_only_a_wrapper_tells_apart_are_two_weights(tmp_path: Path) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 3)
            self.module = nn.ModuleDict({"fc": nn.Linear(3, 3)})

        def forward(self, x: Tensor) -> Tensor:
            return self.module["fc"](self.fc(x.flatten(1)))  # type: ignore[no-any-return]

    old, new = (nn.Sequential(OrderedDict(normalize=nn.Identity(), network=Doubled())) for _ in range(2))
    load_checkpoint(new, save_pt(old.network.state_dict(), tmp_path / "doubled"))
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(old(x), new(x))
    one = nn.Sequential(OrderedDict(normalize=nn.Identity(), network=nn.Sequential(nn.Flatten(), nn.Linear(64, 3))))
    state = one.network.state_dict()
    averaged = {**state, **prefixed({name: weight + 1 for name, weight in state.items()}, "module.")}
    with pytest.raises(
        ValueError,
        match=r"unexpected module\.1\.weight, module\.1\.bias; .*add model.checkpoint_prefix=1\. or module\.$",
    ):
        load_checkpoint(one, save_pt(averaged, tmp_path / "averaged"))


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    weights = network().state_dict()
    weights["network.3.weight"][1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^checkpoint: .*diverged.pt holds NaN in network\.3\.weight; use weights "):
        load_checkpoint(network(), save_pt(weights, tmp_path / "diverged"))


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
    with pytest.raises(ValueError, match=r"is not a weights-only file .*loading it could run code"):
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
