"""YAML text that this package wrote itself."""

from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser is ten times as fast


def parse_yaml(text: str) -> Any:
    """The content of a YAML text, of plain Python. Raises `yaml.YAMLError`."""
    return yaml.load(text, Loader=LOADER)  # both loaders are safe ones
