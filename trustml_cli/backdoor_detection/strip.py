"""STRIP: images that are classified alike, whatever is laid over them.

Gao et al. 2019, arXiv 1902.06531.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trustml_cli.backdoor_detection.suspicion import BATCH, Finding, Inspection, Suspicion, beyond_clean
from trustml_cli.system.ranges import require


@dataclass(frozen=True, kw_only=True)
class Strip(Suspicion):
    """The negative mean entropy (bits) of the answers to an image with each of `overlays` clean images added to it.

    Sums are clipped to [0, 1], as in the authors' code. The overlays are drawn anew for each image; a clean image is
    scored with the other clean ones.
    """

    needs_images: ClassVar = True

    overlays: int

    def __post_init__(self) -> None:
        require(self, "overlays", at_least=1)

    def inspect(self, seen: Inspection) -> Finding:
        random = torch.Generator().manual_seed(seen.seed)
        count = len(seen.clean.x)
        own = torch.arange(count)[:, None]
        others = (own + torch.randint(1, max(2, count), (count, self.overlays), generator=random)) % count
        drawn = torch.randint(count, (len(seen.suspects.x), self.overlays), generator=random)
        clean = self.scores(seen, seen.clean.x, others)
        scores = self.scores(seen, seen.suspects.x, drawn)
        return Finding(scores, beyond_clean(scores, clean, seen.quantile))

    @torch.no_grad()
    def scores(self, seen: Inspection, x: Tensor, drawn: Tensor) -> Tensor:
        """The scores of images x [N, C, H, W], float64 [N]; `drawn` [N, overlays] are indices of clean images."""
        at_once = max(1, BATCH // self.overlays)
        parts = []
        for images, rows in zip(torch.split(x, at_once), torch.split(drawn, at_once), strict=True):
            sums = (images[:, None] + seen.clean.x[rows.to(x.device)]).clamp(0, 1)
            parts.append(-mean_entropy(seen.network(sums.flatten(0, 1)).view(*rows.shape, -1)))
        return torch.cat(parts)


def mean_entropy(logits: Tensor) -> Tensor:
    """The mean over overlays of the entropy of softmax(logits), in bits: logits [N, overlays, K], float64 [N]."""
    log_p = logits.cpu().double().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean(-1) / torch.tensor(2.0).double().log()
