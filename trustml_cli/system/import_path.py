"""Where Python looks for modules. It imports nothing that is not loaded already, for a folder could have its own."""

import os
import sys


def leave_out_the_current_directory() -> None:
    """Have no module of the current directory imported: not by its name, nor as a plugin, nor by processes of ours.

    `python -m` and `PYTHONPATH=.` would. `config.loader.search_working_directory` finds the code that the user allows.
    """
    try:
        here = os.path.realpath(os.curdir)
    except FileNotFoundError:  # it is gone; `cli.main` says so
        return
    if here == os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))):  # noqa: PTH120
        return  # a checkout that is not installed
    sys.path[:] = [place for place in sys.path if os.path.realpath(place or os.curdir) != here]
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [place for place in places if place and os.path.realpath(place) != here]
    os.environ.update(PYTHONPATH=os.pathsep.join(kept), PYTHONSAFEPATH="1")
