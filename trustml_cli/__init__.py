"""Trustworthy machine learning from one command line, and from Python.

    import trustml_cli as trustml
    run = trustml.run("task=fgsm", "model=cifar_cnn")

See docs/python.md. What is imported below is imported at its first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trustml_cli.api.calls import load, run, study, sweep
    from trustml_cli.api.finished import Run, Study, Sweep
    from trustml_cli.system.errors import InputError, RunFailed

__all__ = ["InputError", "Run", "RunFailed", "Study", "Sweep", "load", "run", "study", "sweep"]

MODULES = {
    **dict.fromkeys(("load", "run", "study", "sweep"), "trustml_cli.api.calls"),
    **dict.fromkeys(("Run", "Study", "Sweep"), "trustml_cli.api.finished"),
    **dict.fromkeys(("InputError", "RunFailed"), "trustml_cli.system.errors"),
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name at its first use."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion in a notebook."""
    return __all__
