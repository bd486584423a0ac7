"""Python's module search path. Imports only modules that are loaded already, because a folder could shadow others."""

import os
import sys


def leave_out_the_current_directory() -> None:
    """Remove the current directory from the module search path, for this process, its plugins and its subprocesses.

    `python -m` and `PYTHONPATH=.` add it. `config.loader.search_working_directory` adds it again for code that the user
    allows.
    """
    try:
        here = os.path.realpath(os.curdir)
    except FileNotFoundError:  # the directory was deleted; `cli.main` reports it
        return
    if here == os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))):  # noqa: PTH120
        return  # a checkout that is not installed
    sys.path[:] = [place for place in sys.path if os.path.realpath(place or os.curdir) != here]
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [place for place in places if place and os.path.realpath(place) != here]
    os.environ.update(PYTHONPATH=os.pathsep.join(kept), PYTHONSAFEPATH="1")
