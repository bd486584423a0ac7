"""Loading of weights from files, without running code from the file.

What the file calls its weights differs from the network's names in known ways: the state_dict lies in an entry of the
file, and wrappers put their own name before or into the names. Every such reading is tried, and the one is taken whose
names and shapes are those of the network.
"""

import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trustml_cli.models.model import Normalize
from trustml_cli.models.pickled import NotWeights, check_pickled
from trustml_cli.system.errors import one_line, some_of
from trustml_cli.system.user_file import opened

Weights = Mapping[str, Tensor]

WRAPPERS = ("module", "_orig_mod")  # DataParallel, AveragedModel; torch.compile
COUNTERS = ("num_batches_tracked", "n_averaged")  # of BatchNorm (not before torch 0.4), of AveragedModel
NORMALIZATIONS = (("mu", "sigma"), ("normalize.mean", "normalize.std"))
DEPTH = 3  # of mappings within mappings that are searched for weights
ENTRIES = 100  # of a file that are tried
SHOWN = 3  # names of each kind in a message


@dataclass(frozen=True)
class Reading:
    """One way to read a file: the tensors of the entry `key` whose names begin with `prefix`, without it, for `target`.

    `target` is a module of the network, and `normalize` takes the place of its first layer, if given. Names are
    compared without the parts that wrappers add, unless two names of the file or of the target would then be equal.
    """

    key: str
    prefix: str
    weights: Weights
    target: nn.Module
    normalize: Normalize | None = None

    @property
    def pairs(self) -> dict[str, tuple[str | None, str | None]]:
        """The name in the target and the name in the file (None: absent) of every tensor of either."""
        own = {name: name for name in self.target.state_dict()}
        found = {name.removeprefix(self.prefix): name for name in self.weights}
        if all(len({*map(unwrapped, names)}) == len(names) for names in (own, found)):
            own, found = ({unwrapped(short): name for short, name in names.items()} for names in (own, found))
        return {name: (own.get(name), found.get(name)) for name in own | found if name.split(".")[-1] not in COUNTERS}

    @property
    def missing(self) -> list[str]:
        """Names of the target that the file lacks."""
        return [own for own, found in self.pairs.values() if own and not found]

    @property
    def unexpected(self) -> list[str]:
        """Names of the file that the target lacks."""
        return [found for own, found in self.pairs.values() if found and not own]

    @property
    def misshapen(self) -> list[str]:
        """What is wrong with each tensor that has another shape or kind of numbers than in the target."""
        expected = self.target.state_dict()
        return [
            f"{found} is {kind(self.weights[found])}, not {kind(expected[own])}"
            for own, found in self.pairs.values()
            if own and found and kind(self.weights[found]) != kind(expected[own])
        ]

    @property
    def fits(self) -> bool:
        """Whether the file has all of the target's tensors and no others."""
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def matches(self) -> int:
        """The number of tensors that file and target have in common."""
        return sum(bool(own and found) for own, found in self.pairs.values()) - len(self.misshapen)

    def load(self) -> None:
        """Load the weights into the target; counters that the file lacks stay as they are."""
        state = {own: self.weights[found] for own, found in self.pairs.values() if own and found}
        self.target.load_state_dict({**self.target.state_dict(), **state})


def load_checkpoint(network: nn.Sequential, path: Path, key: str | None = None, prefix: str | None = None) -> str:
    """Load the weights in `path` into a network made by `Model.build`; returns how the file was read.

    They may be those of the whole network, as the store writes it, or of the layers after the normalisation. `key` is
    the entry of the file that holds them, `prefix` what their names begin with; None: whatever fits. Raises ValueError
    if the file cannot be read safely, no reading fits, two that differ do, or a weight is NaN.
    """
    states = read_states(path)
    if key is not None and key not in states:
        raise ValueError(f"checkpoint_key: {path} has no weights in {key!r}; it has {entries(states)}")
    if key is not None:
        states = {key: states[key]}
    if prefix is not None:
        states = {name: {k: v for k, v in state.items() if k.startswith(prefix)} for name, state in states.items()}
        if not any(states.values()):
            raise ValueError(f"checkpoint_prefix: no name in {path} begins with {prefix!r}")
    readings = [
        Reading(entry, start, weights, target, normalize)
        for entry, state in states.items()
        if state
        for weights, normalize in normalizations(state)
        for start in beginnings(weights, prefix or "")
        for target in targets(network)
    ]
    fitting = {reading.key: reading for reading in reversed(readings) if reading.fits}
    if not fitting:
        raise ValueError(f"checkpoint: {path} is of another architecture: {difference(readings, network)}")
    first, *others = (fitting[entry] for entry in states if entry in fitting)
    if any(not same(first.weights, other.weights) for other in others):
        known = entries(entry for entry in states if entry in fitting)
        raise ValueError(f"checkpoint_key: {path} has several networks that fit; use one of {known}")
    if damaged := [name for name, tensor in first.weights.items() if tensor.isnan().any()]:
        raise ValueError(f"checkpoint: {path} holds NaN in {few(damaged)}; use weights from before training diverged")
    first.load()
    if first.normalize is not None:
        network.add_module("normalize", first.normalize)
    entry, start = first.key and f", entry {first.key}", first.prefix and f", names without {first.prefix!r}"
    own = ", normalised by its own mean and deviation" if first.normalize is not None else ""
    return f"{path}{entry}{start}{own}: {first.matches} tensors"


def read_states(path: Path) -> dict[str, dict[str, Tensor]]:
    """The named tensors in a .safetensors file, or in a .pt file that holds tensors only, by the entry they lie in.

    The entry is '' for the file itself, and a dotted name for a mapping within it: {"ema": {"model": state_dict}} has
    the entry ema.model. Raises ValueError for a file that cannot be read, does more than hold weights, or holds none.
    """
    try:
        with opened(path):  # raises OSError unless it is a regular file
            pass
        content = load_file(path) if path.suffix == ".safetensors" else read_pickled(path)
    except (NotWeights, pickle.UnpicklingError) as error:
        raise ValueError(
            f"checkpoint: {path} is not a weights-only file ({one_line(error)}); save state_dict() instead"
        ) from error
    except Exception as error:  # a damaged file makes torch raise anything
        raise ValueError(f"checkpoint: {path} cannot be read ({one_line(error)})") from error
    states = dict(islice(named_tensors(content, seen=set()), ENTRIES))
    if not states:
        raise ValueError(f"checkpoint: {path} holds no state_dict (names to tensors)")
    for state in states.values():
        for name, tensor in state.items():
            if tensor.is_quantized or tensor.is_meta or tensor.layout is not torch.strided:
                raise ValueError(f"checkpoint: {path}: tensor {name} is not a dense tensor of numbers")
    return states


def read_pickled(path: Path) -> object:
    """The content of a file of torch.save, loaded after `check_pickled` has found it safe."""
    check_pickled(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # warns of an unusual pickle protocol
        return torch.load(path, map_location="cpu", weights_only=True)


def named_tensors(
    content: object, seen: set[int], entry: str = "", depth: int = DEPTH
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping from names to tensors within `content`, once, with its entry; other values of it are left out."""
    if not isinstance(content, dict | list | tuple) or not depth or id(content) in seen:
        return
    seen.add(id(content))
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    named = {str(name): value for name, value in pairs if isinstance(name, str) or not isinstance(value, Tensor)}
    if tensors := {name: value for name, value in named.items() if isinstance(value, Tensor)}:
        yield entry, tensors
    for name, value in named.items():
        yield from named_tensors(value, seen, f"{entry}.{name}" if entry else name, depth - 1)


def targets(network: nn.Sequential) -> Iterator[nn.Module]:
    """The modules that a file may hold: the whole network, and without modules that only pass on to another one."""
    yield network
    module: nn.Module | None = network.get_submodule("network")
    while module is not None:
        yield module
        inside = [child for child in module.children() if child.state_dict()]
        module = inside[0] if len(inside) == 1 and len(inside[0].state_dict()) == len(module.state_dict()) else None


def normalizations(state: Weights) -> Iterator[tuple[Weights, Normalize | None]]:
    """`state` as it is, and without the mean and deviation [1, C, 1, 1] that RobustBench's networks begin with."""
    yield state, None
    names = {unwrapped(name): name for name in state}
    for pair in NORMALIZATIONS:
        found = [names[name] for name in pair if name in names]
        values = [state[name] for name in found]
        if len(found) == 2 and all(value.dim() == 4 and value.numel() == value.shape[1] for value in values):
            mean, std = (tuple(value.flatten().tolist()) for value in values)
            yield {name: tensor for name, tensor in state.items() if name not in found}, Normalize(mean, std)


def beginnings(names: Weights, prefix: str) -> Iterator[str]:
    """`prefix`, and what else all names begin with, up to a dot: '', 'model.', 'model.net.'."""
    yield prefix
    parts = {name.removeprefix(prefix).partition(".")[0] for name in names if name not in COUNTERS}
    if len(parts) == 1 and all(name.startswith(f"{prefix}{next(iter(parts))}.") or name in COUNTERS for name in names):
        yield from beginnings(names, f"{prefix}{parts.pop()}.")


def unwrapped(name: str) -> str:
    """A tensor's name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def kind(tensor: Tensor) -> str:
    """The shape of a tensor, and whether its numbers are complex."""
    return f"{list(tensor.shape)}{' complex' if tensor.is_complex() else ''}"


def same(one: Weights, other: Weights) -> bool:
    """Whether both hold the same tensors, whatever their names begin with."""
    return [*map(unwrapped, one)] == [*map(unwrapped, other)] and all(map(torch.equal, one.values(), other.values()))


def entries(states: Iterable[str]) -> str:
    """The entries of a file, for a message."""
    return some_of(entry or "the file itself" for entry in states)


def difference(readings: Sequence[Reading], network: nn.Sequential) -> str:
    """What keeps the closest reading from fitting, and a remedy."""
    own = network.get_submodule("network")
    closest = max(readings, key=lambda one: (one.matches, -len(one.missing) - len(one.unexpected), one.target is own))
    missing, unexpected = closest.missing, closest.unexpected
    if not (missing or unexpected):
        return few(closest.misshapen)
    text = f"missing {few(missing)}; unexpected {few(unexpected)}"
    names = closest.weights
    if "normalize.mean" in unexpected:
        return f"{text}; it was saved behind a normalisation, so give model.normalization as it was then"
    starts = []
    for start in dict.fromkeys(name[: name.index(".") + 1] for name in names if "." in name):
        state = {name: tensor for name, tensor in names.items() if name.startswith(start)}
        if any(Reading(closest.key, start, state, target).fits for target in targets(network)):
            starts.append(start)
    if starts:
        return f"{text}; to leave out the others, add model.checkpoint_prefix={' or '.join(starts)}"
    return (
        f"{text}; where only the names differ, say what they begin with in the file (model.checkpoint_prefix) or which "
        f"entry of it holds them (model.checkpoint_key: {entries(dict.fromkeys(reading.key for reading in readings))})"
    )


def few(names: Sequence[str]) -> str:
    """The first names, and how many there are."""
    shown = ", ".join(islice(names, SHOWN))
    return f"{shown}, … ({len(names)})" if len(names) > SHOWN else shown or "none"
