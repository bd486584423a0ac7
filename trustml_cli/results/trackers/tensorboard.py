"""The TensorBoard tracker; view with `tensorboard --logdir outputs`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trustml_cli.results.trackers.tracker import Tracker
from trustml_cli.system.distribution import needing


@dataclass(kw_only=True)
class TensorBoard(Tracker):
    """Writes curves, figures and parameters to an event file in the run directory."""

    def start(self, folder: Path, parameters: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Create the event file."""
        with needing("tensorboard", "tracker=tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self._writer: Any = SummaryWriter(str(folder))
        self._parameters = {name: plain(value) for name, value in parameters.items() if value is not None}
        self._measured: dict[str, float] = {}
        self._writer.add_text("command", f"    {' '.join(facts.get('command', []))}")

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._scalars(values, number)

    def iterations(self, values: Mapping[int, Mapping[str, float]]) -> None:
        """Add a point to each curve for each iteration."""
        for step, measured in values.items():
            self._scalars(measured, step)

    def metrics(self, values: Mapping[str, float]) -> None:
        """Write each value as a curve of one point; the HPARAMS tab shows it too."""
        self._scalars(values, 0)
        self._measured |= values

    def plot(self, name: str, file: Path) -> None:
        """Add the picture from plots/."""
        import numpy as np
        from PIL import Image

        with Image.open(file) as image:
            self._writer.add_image(f"plots/{name}", np.asarray(image.convert("RGB")), dataformats="HWC")

    def finish(self, status: str) -> None:
        """Write the parameters, together with the metrics that belong to them in the HPARAMS tab."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(self._parameters, self._measured):
            self._writer.file_writer.add_summary(summary)
        self._writer.close()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


def plain(value: Any) -> bool | float | str:
    """A parameter as a type that TensorBoard accepts."""
    return value if isinstance(value, bool | int | float | str) else str(value)
