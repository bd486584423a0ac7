"""Loading from the Hugging Face hub, or from the cache of what was downloaded before."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trustml_cli.system.errors import InputError
from trustml_cli.system.hardware import is_out_of_memory


@contextmanager
def from_hub(key: str, what: str) -> Iterator[None]:
    """Load `what` inside, without warnings on standard error, and without progress bars unless it is a terminal.

    Raises ValueError that begins with `key` where that fails. `what` is a folder on this machine, the name of a
    repository, or a text that says whose weights they are.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "transformers", "datasets", "timm")]
    levels = [logger.level for logger in loggers]
    bars = not are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
        if "transformers" in sys.modules:  # these have bars of their own
            sys.modules["transformers"].utils.logging.disable_progress_bar()
        if "datasets" in sys.modules:
            sys.modules["datasets"].disable_progress_bars()
    try:
        yield
    except (InputError, ImportError):
        raise
    except Exception as error:  # damaged files make these libraries raise anything
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        where = f"is not in {constants.HF_HUB_CACHE} and cannot be downloaded"
        where = "cannot be read" if Path(what).exists() else where
        raise ValueError(f"{key}: {what} {where} ({reason})") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            enable_progress_bars()
