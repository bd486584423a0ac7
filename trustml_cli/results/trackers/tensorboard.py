"""TensorBoard: `tensorboard --logdir outputs`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustml_cli.results.trackers.tracker import Tracker, needing


@dataclass(kw_only=True)
class TensorBoard(Tracker):
    """Curves, figures and parameters in an event file in the run directory."""

    def start(self, folder: Path, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Begin a new event file."""
        with needing("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self._writer: Any = SummaryWriter(str(folder))
        self._parameters = {name: plain(value) for name, value in parameters.items() if value is not None}
        self._measured: dict[str, float] = {}
        self._writer.add_text("command", f"    {' '.join(facts.get('command', []))}")

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """A point on each curve."""
        self._scalars(values, number)

    def metrics(self, values: Mapping[str, float]) -> None:
        """A curve of one point each; the HPARAMS tab has them, too."""
        self._scalars(values, 0)
        self._measured |= values

    def plot(self, name: str, file: Path) -> None:
        """The picture as it lies in plots/."""
        import numpy as np
        from PIL import Image

        with Image.open(file) as image:
            self._writer.add_image(f"plots/{name}", np.asarray(image.convert("RGB")), dataformats="HWC")

    def finish(self, status: str) -> None:
        """The parameters, now that it is known which metrics stand beside them in the HPARAMS tab."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(self._parameters, self._measured):  # type: ignore[no-untyped-call]
            self._writer.file_writer.add_summary(summary)
        self._writer.close()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


def plain(value: Any) -> bool | float | str:
    """A parameter as TensorBoard takes it."""
    return value if isinstance(value, bool | int | float | str) else str(value)
