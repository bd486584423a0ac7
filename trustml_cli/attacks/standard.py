"""AutoAttack: four different attacks in sequence, each on the images without success so far.

Croce and Hein 2020, arXiv 2003.01690; in L1 Croce and Hein 2021, arXiv 2103.01208.
"""

from dataclasses import dataclass
from typing import ClassVar

from trustml_cli.attacks.apgd import APGD
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.attempts import AttackState, MultiAttemptAttack
from trustml_cli.attacks.fab import FAB
from trustml_cli.attacks.losses import Loss
from trustml_cli.attacks.square import Square


@dataclass(frozen=True, kw_only=True)
class Standard(MultiAttemptAttack):
    """The ensemble of the paper, in its order.

    Auto-PGD with cross-entropy; Auto-PGD with the DLR loss towards the `targets` likeliest wrong classes; FAB towards
    the same classes; Square. `steps` is for the first three, `queries` for Square and `restarts` for all; `rho` and
    `area` are as in `apgd` and `square`. With a target, all four attack towards that class.

        attack = Standard(
            norm=Norm.linf, target=None, steps=100, restarts=1, targets=9, queries=5000, rho=0.75, area=0.8
        )
        x_adv = attack(model, x, y, epsilon=8 / 255)
    """

    norms: ClassVar[tuple[Norm, ...]] = APGD.norms

    steps: int
    restarts: int
    targets: int
    queries: int
    rho: float
    area: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self.attacks()

    def attacks(self) -> tuple[APGD, APGD, FAB, Square]:
        """The four attacks in order. Raises ValueError if one of them rejects a parameter."""
        norm, target, steps, restarts, rho = self.norm, self.target, self.steps, self.restarts, self.rho
        apgd = APGD(norm=norm, target=target, loss=Loss.ce, steps=steps, restarts=restarts, rho=rho, targets=None)
        apgd_t = APGD(
            norm=norm, target=target, loss=Loss.dlr, steps=steps, restarts=restarts, rho=rho, targets=self.targets
        )
        fab = FAB(norm=norm, target=target, steps=steps, restarts=restarts, targets=self.targets)
        square = Square(norm=norm, target=target, queries=self.queries, restarts=restarts, area=self.area)
        return apgd, apgd_t, fab, square

    def attack_remaining(self, state: AttackState, epsilon: float) -> None:
        for attack in self.attacks():
            attack.attack_remaining(state, epsilon)
