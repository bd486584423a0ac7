"""Adversarial training: each batch is replaced by adversarial examples against the current network.

With one step: Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572. With many steps from a random start: Madry,
Makelov, Schmidt, Tsipras and Vladu 2018, arXiv 1706.06083. With one large step from a random start: Wong, Rice and
Kolter 2020, arXiv 2001.03994.
"""

from dataclasses import dataclass

from torch import Tensor

from trustml_cli.attacks.losses import Loss
from trustml_cli.attacks.pgd import PGD
from trustml_cli.defences.defence import RobustTraining, check_share, eval_mode, learn_both
from trustml_cli.system.ranges import require
from trustml_cli.training.step import TrainingState


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(RobustTraining):
    """Attacks each batch with PGD on the current network; the loss of the clean images has weight `clean_share`.

    Over the first share `warmup` of the training steps the attack's budget grows linearly up to `epsilon`: against
    large budgets from the start, a network may answer the same to every image for hundreds of steps.

    `steps`, `step_size` (pixel units; None: `rel_path_length`·epsilon/`steps`) and `random_start` are those of PGD. One
    step with `rel_path_length` 1 and no random start is FGSM: the network may then learn to mask its gradients near the
    images instead of becoming robust (Tramèr et al. 2018, arXiv 1705.07204).
    """

    steps: int
    step_size: float | None
    rel_path_length: float
    random_start: bool
    clean_share: float
    warmup: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.clean_share)
        require(self, "warmup", at_least=0, at_most=1)
        self.attack()  # PGD validates its parameters

    def attack(self) -> PGD:
        """The attack on the training images."""
        return PGD(
            norm=self.norm,
            target=None,
            loss=Loss.ce,
            steps=self.steps,
            step_size=self.step_size,
            rel_path_length=self.rel_path_length,
            random_start=self.random_start,
            restarts=1,
        )

    def __call__(self, state: TrainingState, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        taken = state.memory["taken"] = state.memory.get("taken", 0) + 1
        growing = self.warmup * state.steps
        epsilon = self.epsilon * min(1.0, taken / growing) if growing else self.epsilon
        with eval_mode(state.network):
            x_adv = self.attack()(state.network, x, y, epsilon)
        return learn_both(state, x, x_adv, y, self.clean_share)
