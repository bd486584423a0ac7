"""An epoch of training against the way that tutorials take: DataLoader, PIL images, torchvision's transforms."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from benchmarks.attacks import network
from benchmarks.interleaved import Ratio, ratios
from trustml_cli.data.batches import Augmentation, batches
from trustml_cli.data.dataset import InMemory

IMAGES, BATCH = 1000, 100


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """PIL images, mirrored and cropped one at a time."""

    def __init__(self, split: InMemory) -> None:
        images, self.labels = split.inputs, split.labels
        self.pictures = [to_pil_image(image) for image in images]
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[index]), int(self.labels[index])


def epoch(n: int) -> list[Ratio]:
    """`cifar_cnn` on random images of 3×32×32, mirrored and cropped, Adam; the losses fall alike."""
    random = torch.Generator().manual_seed(0)
    split = InMemory(
        torch.randint(0, 256, (IMAGES, 3, 32, 32), generator=random, dtype=torch.uint8),
        torch.randint(0, 10, (IMAGES,), generator=random),
    )
    ours, theirs = (network().train().requires_grad_(True) for _ in range(2))
    ours = ours.to(memory_format=torch.channels_last)
    ours_steps = torch.optim.Adam(ours.parameters(), fused=True)
    their_steps = torch.optim.Adam(theirs.parameters())
    loader = DataLoader(Pictures(split), batch_size=BATCH, shuffle=True)

    def descend(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def own() -> None:
        order = torch.randperm(IMAGES)
        cpu, shape = torch.device("cpu"), torch.channels_last
        for x, y in batches(split, BATCH, cpu, order, Augmentation(flip=True, crop_padding=4), shape):
            descend(ours, ours_steps, x, y)

    def tutorial() -> None:
        for x, y in loader:
            descend(theirs, their_steps, x, y)

    return ratios(f"an epoch over {IMAGES} images", own, {"DataLoader and PIL": tutorial}, n)
