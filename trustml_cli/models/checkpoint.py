"""Loading of weights from files, without running code from the file."""

import pickle
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trustml_cli.models.pickled import NotWeights, check_pickled
from trustml_cli.system.errors import one_line
from trustml_cli.system.user_file import opened


def load_checkpoint(network: nn.Sequential, path: Path) -> None:
    """Load the weights in `path` into a network made by `Model.build`.

    The file may hold the whole network, as the store writes it, or only the layers after the normalisation. Raises
    ValueError if it cannot be read safely or belongs to another architecture.
    """
    weights = read_weights(path)
    whole = any(name.startswith("network.") for name in weights)
    target: nn.Module = network if whole else network.get_submodule("network")
    expected = {name: tensor.shape for name, tensor in target.state_dict().items()}
    for name, tensor in weights.items():
        if name not in expected:
            raise ValueError(f"checkpoint: {path} is of another architecture: it has {name}, the model has not")
        if tensor.shape != expected[name]:
            found, wanted = list(tensor.shape), list(expected[name])
            raise ValueError(f"checkpoint: {path} is of another architecture: {name} is {found}, not {wanted}")
    if absent := sorted(expected.keys() - weights.keys()):
        raise ValueError(f"checkpoint: {path} is of another architecture: it lacks {absent[0]}")
    target.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state_dict in a .safetensors file, or in a .pt file that holds tensors only.

    Raises ValueError for any other file, and for unsupported tensors: sparse, quantised, complex, meta.
    """
    try:
        with opened(path):  # raises OSError unless it is a regular file
            pass
        content = load_file(path) if path.suffix == ".safetensors" else read_pickled(path)
    except (NotWeights, pickle.UnpicklingError) as error:
        raise ValueError(
            f"checkpoint: {path} is no weights-only file ({one_line(error)}); save state_dict() instead"
        ) from error
    except Exception as error:  # a damaged file makes torch raise anything
        raise ValueError(f"checkpoint: {path} cannot be read ({one_line(error)})") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(f"checkpoint: {path} holds no state_dict (names to tensors)")
    for name, tensor in content.items():
        if tensor.is_complex() or tensor.is_quantized or tensor.is_meta or tensor.layout is not torch.strided:
            raise ValueError(f"checkpoint: {path}: tensor {name} is no dense tensor of real numbers")
    return content


def read_pickled(path: Path) -> object:
    """The content of a file of torch.save, loaded after `check_pickled` has found it safe."""
    check_pickled(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # warns of an unusual pickle protocol
        return torch.load(path, map_location="cpu", weights_only=True)
