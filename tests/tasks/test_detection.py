"""Parts that the tasks with detectors of unseen images share."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.configs import choice
from tests.helpers import CPU
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import InMemory
from trustml_cli.system.errors import InputError
from trustml_cli.tasks.detection import fit_detectors


class Halved(nn.Module):
    """Logits that are changed after the output layer, as by a fitted calibrator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def test_a_detector_that_does_not_support_the_trained_network_is_not_fitted() -> None:
    torch.manual_seed(0)
    split = InMemory(torch.randint(256, (12, 1, 2, 2), dtype=torch.uint8), torch.arange(12) % 2)
    context: Any = SimpleNamespace(hardware=CPU, seed=0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    for name in ("react", "vim", "ash"):
        detector = {name: build(choice("detector", name), "detector")}
        fit_detectors(plain, split, split, detector, context)
        with pytest.raises(InputError, match=f"^detector: {name} needs logits that are the output of the last linear"):
            fit_detectors(nn.Sequential(*plain, Halved()), split, split, detector, context)
