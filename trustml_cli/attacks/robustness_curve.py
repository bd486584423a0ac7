"""What an attack did, image by image: predictions, sizes and costs, at each epsilon."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trustml_cli.attacks.attack import Norm
from trustml_cli.attacks.attack_view import AttackView
from trustml_cli.models.inference import predicted_classes


@dataclass(frozen=True)
class Predictions:
    """Predicted classes and their softmax probabilities, both [N], on the CPU.

    For invalid logits (see `logits_of`) the class is −1 and the probability 0.
    """

    predicted: Tensor
    confidence: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> "Predictions":
        """The predictions that `logits` [N, K] are."""
        return cls(predicted_classes(logits).cpu(), logits.softmax(1).amax(1).nan_to_num().cpu())

    def __getitem__(self, images: Tensor | slice) -> "Predictions":
        """The predictions for these images."""
        return Predictions(self.predicted[images], self.confidence[images])

    def where_none(self, other: "Predictions") -> "Predictions":
        """The predictions, with those of `other` for images without a valid prediction."""
        answered = self.predicted >= 0
        return Predictions(
            self.predicted.where(answered, other.predicted), self.confidence.where(answered, other.confidence)
        )


@dataclass
class EpsilonResult:
    """Results of the attack at one epsilon: predictions and perturbation sizes, each of shape [N]."""

    epsilon: float
    answers: Predictions
    transferred: dict[str, Predictions]
    """Predictions of other networks for the same adversarial images, by name."""
    sizes: dict[Norm, Tensor]
    seconds: float
    queries: float
    """Mean number of forward passes per image."""
    gradients: float
    """Mean number of backward passes per image."""
    unanswered: Tensor
    """Whether the adversarial image is not finite or has invalid logits; the original image replaces it. Bool [N]."""
    broken_gradients: float
    """Mean number of gradients per image that contain NaN or infinity."""
    examples: Tensor
    """The first few adversarial images, [n, C, H, W]."""


@dataclass
class RobustnessCurve:
    """Results of an attack at several epsilons; `labels`, `clean` and `zero_gradient` have shape [N]."""

    labels: Tensor
    clean: Predictions
    clean_transferred: dict[str, Predictions]
    zero_gradient: Tensor | None
    """Whether the input gradient of the attack's loss is zero, bool [N]; None for an attack without gradients."""
    examples: Tensor
    """The first few images before the attack, [n, C, H, W]."""
    attacked: list[EpsilonResult] = field(default_factory=list)
    batch_size: int | None = None
    """The reduced batch size after running out of memory; None if memory was sufficient."""
    asked: AttackView | None = None
    """The network that the attack queried."""
    distance: Tensor | None = None
    """The size of the smallest perturbation found for each image, [N]: 0 if the goal is reached unperturbed, ∞ if none
    was found. None for an attack within a budget. Accuracy at an epsilon is the share of larger distances."""

    @property
    def initially_right(self) -> Tensor:
        """Whether the clean image is classified correctly, bool [N]."""
        return self.clean.predicted == self.labels


def concatenate(parts: Sequence[RobustnessCurve]) -> RobustnessCurve:
    """Concatenate the curves of several batches; queries and gradients are averaged over the images."""
    count = torch.tensor([len(part.labels) for part in parts]).double()

    def mean(values: Iterator[float]) -> float:
        return float((torch.tensor(list(values)).double() * count).sum() / count.sum())

    def together(answers: Sequence[Predictions]) -> Predictions:
        predicted, confidence = zip(*((one.predicted, one.confidence) for one in answers), strict=True)
        return Predictions(torch.cat(predicted), torch.cat(confidence))

    def by_name(answers: Sequence[dict[str, Predictions]]) -> dict[str, Predictions]:
        return {name: together([one[name] for one in answers]) for name in answers[0]}

    zero = [part.zero_gradient for part in parts if part.zero_gradient is not None]
    distance = [part.distance for part in parts if part.distance is not None]
    return RobustnessCurve(
        torch.cat([part.labels for part in parts]),
        together([part.clean for part in parts]),
        by_name([part.clean_transferred for part in parts]),
        torch.cat(zero) if zero else None,
        torch.cat([part.examples for part in parts]),
        [
            replace(
                of_epsilon[0],
                answers=together([one.answers for one in of_epsilon]),
                transferred=by_name([one.transferred for one in of_epsilon]),
                sizes={norm: torch.cat([one.sizes[norm] for one in of_epsilon]) for norm in Norm},
                seconds=sum(one.seconds for one in of_epsilon),
                queries=mean(one.queries for one in of_epsilon),
                gradients=mean(one.gradients for one in of_epsilon),
                unanswered=torch.cat([one.unanswered for one in of_epsilon]),
                broken_gradients=mean(one.broken_gradients for one in of_epsilon),
                examples=torch.cat([one.examples for one in of_epsilon]),
            )
            for of_epsilon in zip(*(part.attacked for part in parts), strict=True)
        ],
        distance=torch.cat(distance) if distance else None,
    )
