"""What task=invert reconstructs, and what it compares reconstructions with."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trustml_cli.data.batches import batches
from trustml_cli.data.dataset import Dataset, Split, random_subset
from trustml_cli.models.inference import logits_of
from trustml_cli.privacy.inversion import correlation
from trustml_cli.training.predict import BATCH


@dataclass(frozen=True)
class Scene:
    """The attacked network, a judge that was trained on other images, and images [N, C, H, W] with classes [N].

    `train` are training images of the attacked network and `test` as many test images. `average` are the means of each
    class over the former, [classes, C, H, W]; black for a class without any.
    """

    network: nn.Module
    judge: nn.Module
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    average: Tensor

    @classmethod
    def of(
        cls, network: nn.Module, judge: nn.Module, data: Dataset, pool: int, seed: int, device: torch.device
    ) -> "Scene":
        """Draw `pool` training and test images at random, or as many as there are of both."""
        size = min(pool, len(data.train), len(data.test))
        train, test = (images_of(random_subset(split, size, seed), device) for split in (data.train, data.test))
        average = torch.zeros(len(data.classes), *data.shape, device=device)
        for number in train[1].unique().tolist():
            average[number] = train[0][train[1] == number].mean(0)
        return cls(network, judge, train, test, average)

    def judged(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The attacked network's softmax probability of the target [N], and whether the judge predicts it, bool [N]."""
        with torch.no_grad():
            own, other = (
                torch.cat([logits_of(each, part) for part in torch.split(x, BATCH)])
                for each in (self.network, self.judge)
            )
        return own.softmax(1).gather(1, target[:, None])[:, 0].cpu(), (other.argmax(1) == target).cpu()

    def of_class(self, number: int, count: int, training: bool) -> Tensor:
        """Up to `count` training or test images of a class."""
        images, labels = self.train if training else self.test
        return images[labels == number][:count]


@dataclass(frozen=True)
class Likeness:
    """Of each of N reconstructions: distances to the nearest images, and correlations, all [N] on the CPU.

    `train` and `test` are root mean square distances to the nearest training and test image. The correlations are with
    the average of its class, and the largest with a training and a test image; `nearest` is the number of that training
    image.
    """

    train: Tensor
    test: Tensor
    with_average: Tensor
    with_train: Tensor
    with_test: Tensor
    nearest: Tensor

    @classmethod
    def of(cls, x: Tensor, target: Tensor, scene: Scene) -> "Likeness":
        """Compare reconstructions x [N, C, H, W] of the classes `target` [N]."""
        pixels = x[0].numel()
        train, test = (
            torch.cdist(x.flatten(1), images.flatten(1)).amin(1).cpu() / pixels**0.5
            for images, _ in (scene.train, scene.test)
        )
        averaged = correlation(x, scene.average).gather(1, target[:, None])[:, 0].cpu()
        (with_train, nearest), (with_test, _) = (
            correlation(x, images).max(1) for images, _ in (scene.train, scene.test)
        )
        return cls(train, test, averaged, with_train.cpu(), with_test.cpu(), nearest.cpu())


def images_of(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """All images and labels of a split."""
    parts = list(batches(split, BATCH, device))
    return torch.cat([x.contiguous() for x, _ in parts]), torch.cat([y for _, y in parts])


def rmse(x: Tensor, truth: Tensor) -> Tensor:
    """The root mean square error of each image, [N] on the CPU."""
    return (x - truth).flatten(1).square().mean(1).sqrt().cpu()
