"""The standard ensemble against its authors' library, where a part of the images stands."""

import warnings

import torch
from torch import Tensor

from benchmarks.attacks import network
from benchmarks.interleaved import Ratio, ratios
from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.attack_view import folded_copy
from trustml_cli.attacks.standard import Standard

EPSILON = 4 / 255
IMAGES, STEPS, QUERIES = 60, 20, 500
AS_GOOD = 1 / IMAGES  # robust accuracies as near as this are equal: one image


def ensemble(n: int) -> list[Ratio]:
    """All four attacks in their order, with fewer steps; ours may leave one image more than theirs at most."""
    from pyautoattack import AutoAttack

    warnings.filterwarnings("ignore")
    plain = network()
    last = network().to(memory_format=torch.channels_last)
    x = torch.rand(IMAGES, 3, 32, 32)
    y = plain(x).argmax(1)
    attack = Standard(
        norm=Norm.linf, target=None, steps=STEPS, restarts=1, targets=9, queries=QUERIES, rho=0.75, area=0.8
    )

    def own() -> Tensor:
        torch.manual_seed(0)
        return attack(folded_copy(last), x.contiguous(memory_format=torch.channels_last), y, EPSILON)

    def theirs() -> Tensor:
        peer = AutoAttack(plain, norm="Linf", eps=EPSILON, seed=0)
        for part in (peer.apgd, peer.apgd_targeted, peer.fab):
            part.n_iter = part.n_iter_orig = STEPS
        peer.apgd.n_iter_2 = peer.apgd_targeted.n_iter_2 = max(1, int(0.22 * STEPS))
        peer.square.n_queries = QUERIES
        return peer.run_standard_evaluation(x, y)[0]  # type: ignore[no-any-return]

    def stand(x_adv: Tensor) -> float:
        return float((plain(x_adv).argmax(1) == y).double().mean())

    peers, ours = stand(theirs()), stand(own())
    assert 0.1 < peers < 0.9, f"says little: {peers:.2f} stand"
    assert ours <= peers + AS_GOOD, f"{ours:.2f} stand, {peers:.2f} under pyautoattack"
    what = f"`standard`, {STEPS} steps, {QUERIES} queries: {ours:.0%} of {IMAGES} stand"
    return ratios(what, own, {f"pyautoattack: {peers:.0%} stand": theirs}, n)
