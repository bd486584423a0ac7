"""Import of the user's own modules."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path

from trustml_cli.system.recipe import is_installed


@contextmanager
def current_directory_first(module: str) -> Iterator[None]:
    """Search the current directory first while `module`, whose code the user allowed, is imported.

    Later imports, such as those within its functions, find the directory at the end of the search path, where it
    shadows no installed package. Raises ImportError if the directory has that module, but Python has loaded its own of
    that name.
    """
    here, top = str(Path.cwd()), module.partition(".")[0]
    own, loaded = PathFinder.find_spec(top, [here]), sys.modules.get(top)
    if own is not None and own.loader is not None and loaded is not None:
        file = getattr(loaded, "__file__", None)
        if file is None or is_installed(Path(file)):
            raise ImportError(f"{Path(own.origin or top).name} has the name of a module in use; rename it")
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)
