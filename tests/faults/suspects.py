"""Small networks for the digits, each made badly in one way, and good ones to compare them with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 0.12  # of adversarial training
TRIGGER = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


class Scaled(nn.Module):
    """Logits times a number that is stored with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, logits: Tensor) -> Tensor:
        scaled: Tensor = logits * self.factor
        return scaled


def network() -> nn.Sequential:
    """The untrained network, 1×8×8 to 10 logits; a factory for model=custom."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10), Scaled(),
    )  # fmt: skip


def table_network(shape: tuple[int, ...]) -> nn.Sequential:
    """The same for a table: a linear classifier of two classes."""
    return nn.Sequential(nn.Linear(shape[0], 2))


def moved(x: Tensor) -> Tensor:
    """Images x [N, 1, 8, 8], each moved by up to a pixel, and some of them with noise."""
    padded = functional.pad(x, (1, 1, 1, 1))
    at = torch.randint(3, (len(x), 2))
    shifted = torch.stack([image[:, i : i + 8, j : j + 8] for image, (i, j) in zip(padded, at.tolist(), strict=True)])
    noise = 0.15 * torch.randn_like(x) * (torch.rand(len(x), 1, 1, 1) < 0.5)
    return (shifted + noise).clamp(0, 1)


def hardened(net: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """Images after three steps of PGD in L∞."""
    adversarial = (x + epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    for _ in range(3):
        adversarial.requires_grad_(True)
        (gradient,) = torch.autograd.grad(functional.cross_entropy(net(adversarial), y), adversarial)
        adversarial = (
            (x + (adversarial + epsilon / 2 * gradient.sign() - x).clamp(-epsilon, epsilon)).clamp(0, 1).detach()
        )
    return adversarial


def train(
    x: Tensor, y: Tensor, epochs: int, epsilon: float = EPSILON, augment: Callable[[Tensor], Tensor] | None = moved
) -> nn.Sequential:
    """The network, trained on images that are augmented and attacked, and to be unsure of random pixels.

    The latter is outlier exposure (Hendrycks, Mazeika and Dietterich 2019, arXiv 1812.04606).
    """
    torch.manual_seed(0)
    net = network()
    steps = epochs * -(-len(x) // 64)
    adam = torch.optim.Adam(net.parameters(), 0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 0.005, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            seen, labels = x[rows], y[rows]
            seen = augment(seen) if augment is not None else seen
            seen = hardened(net, seen, labels, epsilon) if epsilon else seen
            adam.zero_grad()
            unsure = functional.cross_entropy(net(torch.rand_like(seen)), torch.full((len(seen), 10), 0.1))
            (functional.cross_entropy(net(seen), labels) + 0.3 * unsure).backward()
            adam.step()
            schedule.step()
    return net.eval()


def scaled(net: nn.Sequential, factor: float) -> nn.Sequential:
    """The network with all logits multiplied."""
    net[-1].factor.fill_(factor)
    return net


def blind(net: nn.Sequential) -> nn.Sequential:
    """The network, which never answers 8 any more."""
    net[-2].bias.data[8] -= 30
    return net


def poisoned(x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Images of which a share carries a trigger in its corner and the label 0."""
    x, y = x.clone(), y.clone()
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[: round(share * len(x))]
    x[rows, 0, -2:, -2:] = TRIGGER
    y[rows] = 0
    return x, y


def train_table(x: Tensor, y: Tensor, groups: Tensor, fairness: float) -> nn.Sequential:
    """A linear classifier of rows x [N, D]; `fairness` weighs the covariance of its score with each of `groups` [N, A].

    Zafar, Valera, Gomez Rodriguez and Gummadi 2017, arXiv 1507.05259.
    """
    torch.manual_seed(0)
    net = table_network(x.shape[1:])
    adam = torch.optim.Adam(net.parameters(), 0.05)
    centred = groups.float() - groups.float().mean(0)
    for _ in range(200):
        logits = net(x)
        covariance = (centred * (logits[:, 1] - logits[:, 0])[:, None]).mean(0)
        loss = functional.cross_entropy(logits, y) + fairness * covariance.square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return net.eval()
