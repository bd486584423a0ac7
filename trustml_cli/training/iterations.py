"""Loss and accuracy every few batches of training, beside the rows of whole epochs."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from trustml_cli.data.dataset import Split
from trustml_cli.system.hardware import Hardware
from trustml_cli.training.predict import predict
from trustml_cli.training.trainer import Iteration, finite


@dataclass
class IterationLog:
    """Measures a network after every `every` batches, on the batch and on all of `test`."""

    every: int
    test: Split
    hardware: Hardware
    step: int = 0
    rows: list[Iteration] = field(default_factory=list)

    def due(self, y: Tensor) -> bool:
        """Count a batch with labels y; whether to measure after it. An empty batch has nothing to measure."""
        self.step += 1
        return self.step % self.every == 0 and len(y) > 0

    def add(self, network: nn.Module, loss: Tensor, logits: Tensor, y: Tensor, lr: float) -> None:
        """Add a row; `loss` and `logits` are those of the batch, a negative label is none. Leaves eval mode on."""
        labelled = y >= 0
        correct = (logits.argmax(1) == y)[labelled].double().mean().item() if labelled.any() else 0.0
        answers = predict(network, self.test, self.hardware)
        self.rows.append(
            Iteration(
                step=self.step,
                train_loss=finite(loss),
                train_accuracy=correct,
                test_loss=finite(answers.loss),
                test_accuracy=answers.accuracy,
                lr=lr,
            )
        )

    def take(self) -> tuple[Iteration, ...]:
        """The rows since the last call."""
        taken, self.rows = tuple(self.rows), []
        return taken
