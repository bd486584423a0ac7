"""Ensemble adversarial training: train on adversarial examples against other, static networks too.

Tramèr, Kurakin, Papernot, Goodfellow, Boneh and McDaniel 2018, arXiv 1705.07204.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.fgsm import FGSM
from trustml_cli.defences.defence import RobustTraining, check_share, eval_mode, learn_both
from trustml_cli.training.step import CROSS_ENTROPY, TrainingState

if TYPE_CHECKING:
    from trustml_cli.training.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class EnsembleTraining(RobustTraining):
    """Attacks each batch with FGSM on one random network: the one in training or one of `static` other networks.

    The other networks are not trained further, so the generation of examples is decoupled from the trained network.
    They have the same architecture and are trained without a defence from different seeds (the paper uses other
    architectures too). The loss of the clean images has weight `clean_share`.
    """

    norms: ClassVar[tuple[Norm, ...]] = FGSM.norms

    static: int
    clean_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.static < 1:
            raise ValueError(f"static: must be at least 1, got {self.static}; without others take defence=fgsm")
        check_share(self.clean_share)

    def needs(self, spec: "TrainingSpec") -> "dict[str, TrainingSpec]":
        plain, numbers = replace(spec, step=CROSS_ENTROPY, needs={}), range(1, self.static + 1)
        return {f"static {number}": replace(plain, seed=spec.seed_for("static", number)) for number in numbers}

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert len(state.networks) == self.static, (len(state.networks), self.static)
        sources = [state.network, *state.networks]
        source = sources[int(torch.randint(len(sources), ()))]
        with eval_mode(source):
            x_adv = FGSM(norm=self.norm, target=None)(source, x, y, self.epsilon)
        return learn_both(state, x, x_adv, y, self.clean_share)
