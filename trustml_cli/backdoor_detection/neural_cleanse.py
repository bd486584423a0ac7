"""Neural Cleanse: the smallest patch that turns any image into each class.

Wang, Yao, Shan, Li, Viswanath, Zheng and Zhao 2019, IEEE S&P, doi 10.1109/SP.2019.00031.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trustml_cli.backdoor_detection.suspicion import Finding, Inspection, Suspicion, beyond_clean, latents_of
from trustml_cli.models.minibatches import descend
from trustml_cli.system.ranges import require

AT_ONCE = 10  # classes whose masks are searched for together
SUCCESS = 0.99  # share of a batch that a mask must turn into its class
PATIENCE = 5  # batches in a row with, or without, success after which the weight of the mask changes
RISE, FALL = 1.5, 1.5**1.5  # factors of these changes
FIRST_WEIGHT = 1e-3


@dataclass(frozen=True, kw_only=True)
class NeuralCleanse(Suspicion):
    """Searches a mask m and a pattern p for each class so that (1 − m)·x + m·p is taken for it, with a small ‖m‖₁.

    Each search takes `steps` steps of Adam with rate `lr` on batches of `batch_size` clean images. The network is
    suspicious where the smallest mask has an anomaly index above `threshold`. An image is flagged in a suspicious
    network where it activates the share `neurons` of penultimate neurons that the smallest mask raises most, more
    strongly than clean images do (the paper's filter).
    """

    needs_images: ClassVar = True
    fewest_classes: ClassVar = 3  # the anomaly index of the smaller of two masks is always 0.67

    steps: int
    batch_size: int
    lr: float
    threshold: float
    neurons: float

    def __post_init__(self) -> None:
        require(self, "steps", "batch_size", at_least=1)
        require(self, "lr", "threshold", above=0)
        require(self, "neurons", above=0, at_most=1)

    def inspect(self, seen: Inspection) -> Finding:
        random = torch.Generator().manual_seed(seen.seed)
        found = [
            self.recover(seen.network, seen.clean.x, classes, random)
            for classes in torch.split(torch.arange(seen.classes), AT_ONCE)
        ]
        masks, patterns = (torch.cat(part) for part in zip(*found, strict=True))
        sizes = masks.flatten(1).sum(1)
        index, smallest = anomaly_index(sizes), int(sizes.argmin())
        marked = stamped(seen.clean.x, masks[smallest].to(seen.clean.x), patterns[smallest].to(seen.clean.x))
        raised = latents_of(seen.network, marked).mean(0) - seen.clean.latents.mean(0)
        chosen = raised.topk(max(1, round(self.neurons * len(raised)))).indices
        scores, clean = (part.latents[:, chosen].mean(1) for part in (seen.suspects, seen.clean))
        flagged = beyond_clean(scores, clean, seen.quantile) & (index > self.threshold)
        return Finding(scores, flagged, index, masks, patterns)

    @torch.enable_grad()
    def recover(self, network: nn.Module, x: Tensor, classes: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Masks [K, H, W] and patterns [K, C, H, W] for `classes` [K], from images x [N, C, H, W]; on the CPU.

        Of each class the smallest mask is kept that came after `PATIENCE` batches with success, or else the last one.
        """
        count = len(classes)
        starts = torch.rand(count, 1 + x.shape[1], *x.shape[2:], generator=random)
        values = torch.atanh((starts - 0.5) * (2 - 1e-6)).to(x.device).requires_grad_(True)
        optimizer = torch.optim.Adam([values], self.lr, betas=(0.5, 0.9))
        weight = torch.full((count,), FIRST_WEIGHT, device=x.device)
        streak, lapse = torch.zeros(2, count, dtype=torch.int64, device=x.device)
        best, smallest = values.detach().clone(), torch.full((count,), torch.inf, device=x.device)
        for _ in range(self.steps):
            batch = x[torch.randint(len(x), (self.batch_size,), generator=random).to(x.device)]
            mask, pattern = mask_and_pattern(values)
            logits = network(stamped(batch, mask, pattern).flatten(0, 1)).float()
            goal = classes.to(x.device).repeat_interleave(len(batch))
            size = mask.flatten(1).sum(1)
            success = (logits.argmax(1) == goal).view(count, -1).double().mean(1) >= SUCCESS
            streak, lapse = (streak + 1) * success, (lapse + 1) * ~success
            smaller = (streak >= PATIENCE) & (size < smallest)
            best = values.detach().where((smaller | smallest.isinf())[:, None, None, None], best)
            smallest = size.detach().where(smaller, smallest)
            errors = functional.cross_entropy(logits, goal, reduction="none").view(count, -1).mean(1)
            descend(optimizer, (errors + weight * size).sum())
            rises, falls = ((run > 0) & (run % PATIENCE == 0) for run in (streak, lapse))
            weight = weight * torch.where(rises, RISE, 1.0) / torch.where(falls, FALL, 1.0)
        mask, pattern = mask_and_pattern(best)
        return mask.cpu(), pattern.cpu()


def mask_and_pattern(values: Tensor) -> tuple[Tensor, Tensor]:
    """Unbounded values [K, 1 + C, H, W] as masks [K, H, W] and patterns [K, C, H, W] in [0, 1]."""
    bounded = values.tanh() / 2 + 0.5
    return bounded[:, 0], bounded[:, 1:]


def stamped(x: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """(1 − m)·x + m·p of images x [N, C, H, W]: [N, C, H, W], or [K, N, C, H, W] for K masks and patterns."""
    opacity = mask[..., None, None, :, :]
    return (1 - opacity) * x + opacity * pattern[..., None, :, :, :]


def anomaly_index(sizes: Tensor) -> float:
    """How far the smallest of the masks' sizes [K] is below their median, in units of 1.4826 · MAD.

    MAD is the median absolute deviation from the median, which 1.4826 makes comparable with a standard deviation; the
    paper suspects a network above 2. 0 where all sizes are the median.
    """
    sizes = sizes.double()
    median = sizes.quantile(0.5)
    spread = 1.4826 * (sizes - median).abs().quantile(0.5)
    below = median - sizes.min()
    return float(below / spread.clamp(min=1e-12)) if below > 0 else 0.0
