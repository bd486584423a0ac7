"""The store of trained models, cached under a hash of everything that determines their weights."""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trustml_cli.models.classifier import memory_format
from trustml_cli.system.files import digest, make_once, write_json
from trustml_cli.system.recipe import code_of
from trustml_cli.training.trainer import Epoch, Iteration, Report

log = logging.getLogger(__name__)

LAYOUT = 4  # increase it when the stored format or the training changes: older entries are then ignored

Recipe = Mapping[str, Any]
"""Everything that determines the weights of a trained model, as JSON-able values."""


def as_built(network: nn.Module) -> dict[str, Any]:
    """Digests of an untrained network for a recipe: its layers, its initial weights, and the user code they come from.

    They also depend on inputs that no field names, such as a file that the user's code reads. Of each weight the shape
    and the norm are hashed, the norm to three digits: further ones may depend on the number of threads.

    Raises ValueError for a network that cannot be stored.
    """
    state = network.state_dict()
    for name, tensor in state.items():
        if not (isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_quantized):
            raise ValueError(f"{name} in its state_dict is not a dense tensor, so the trained network cannot be stored")
    sizes = {
        name: [list(tensor.shape), f"{tensor.detach().cpu().to(wide(tensor)).norm().item():.3g}"]
        for name, tensor in state.items()
    }
    code = code_of({type(layer).__module__ for layer in network.modules()})
    layers = re.sub(r"0x[0-9a-f]+", "", str(network))  # memory addresses differ between runs
    return {"layers": digest(layers), "weights": digest(sizes), **({"code": code} if code else {})}


def wide(tensor: Tensor) -> torch.dtype:
    """The most precise type for a tensor's numbers."""
    return torch.complex128 if tensor.is_complex() else torch.float64


@dataclass(frozen=True)
class Stored:
    """A trained model in the store: its key, its weights and its training history."""

    key: str
    weights: dict[str, Tensor]
    history: list[Epoch]


@dataclass(frozen=True)
class ModelStore:
    """Models under `root`, one folder each with model.safetensors and a readable model.json."""

    root: Path

    def key(self, recipe: Recipe) -> str:
        """The store key of `recipe`, which is the name of the model's folder."""
        return digest([LAYOUT, recipe])[:16]

    def get_or_train(self, recipe: Recipe, train: Callable[[Report], nn.Module], report: Report) -> Stored:
        """The model of `recipe`, trained by `train` if it is not in the store.

        Concurrent processes with the same recipe train it once. `report` is called for each epoch, whether the model is
        trained now or was trained before.
        """
        key = self.key(recipe)
        folder = self.root / key
        history: list[Epoch] = []

        def keep(epoch: Epoch) -> None:
            history.append(epoch)
            report(epoch)

        def make(partial: Path) -> None:
            log.info("training model %s", key)
            network = train(keep)
            state = network.state_dict().items()
            # cloned, because safetensors refuses tensors that share memory
            weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state}
            (partial / "model.safetensors").write_bytes(save(weights))  # so that a full disk raises OSError
            write_json(partial / "model.json", {"recipe": recipe, "history": [asdict(epoch) for epoch in history]})

        make_once(folder, make)
        if not history:
            log.info("model %s was trained before; found in %s", key, folder)
            for row in json.loads((folder / "model.json").read_text())["history"]:
                keep(Epoch(**{**row, "iterations": tuple(Iteration(**each) for each in row["iterations"])}))
        return Stored(key, load_file(folder / "model.safetensors"), history)

    def fetch_many(
        self, recipes: Sequence[Recipe], train: Callable[[], Sequence[tuple[nn.Module, list[Epoch]]]]
    ) -> list[Stored]:
        """The models of `recipes`, in their order; if one is missing, `train` trains all of them jointly.

        They are looked up in the order of their keys, and the lock of the first missing one is held until all are
        stored, so that concurrent processes with the same recipes train them once.
        """
        keys = [self.key(recipe) for recipe in recipes]
        trained: list[tuple[nn.Module, list[Epoch]]] = []
        found: dict[str, Stored] = {}

        def fetch(key: str) -> Stored:
            def make(report: Report) -> nn.Module:
                if not trained:
                    trained.extend(train())
                    found.update({other: fetch(other) for other in sorted({*keys} - {*found, key})})
                network, history = trained[keys.index(key)]
                for epoch in history:
                    report(epoch)
                return network

            return self.get_or_train(recipes[keys.index(key)], make, lambda epoch: None)

        for key in sorted({*keys}):
            if key not in found:
                found[key] = fetch(key)
        return [found[key] for key in keys]


def load_frozen(network: nn.Module, weights: dict[str, Tensor], device: torch.device) -> nn.Module:
    """`network` with `weights`, on `device`, in eval mode, channels last if it can be, with `requires_grad` off."""
    network.load_state_dict(weights)
    return network.to(device).to(memory_format=memory_format(network)).eval().requires_grad_(False)
