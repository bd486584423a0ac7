"""The top-level keys of the config."""

from dataclasses import dataclass
from pathlib import Path

from trustml_cli.system.hardware import Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that every run has, independent of its task."""

    seed: int
    device: str
    precision: Precision
    compile: bool
    data_dir: Path
    cache_dir: Path
    output_dir: Path
    resume: bool
    allow: list[str]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: must be at least 0 and below 2**63, got {self.seed}")
