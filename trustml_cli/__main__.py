"""`trustml`, and `python -m trustml_cli`."""

import os
import sys
from pathlib import Path


def main() -> None:
    """The command line; an interrupt is quiet from its very first import on."""
    try:
        import_nothing_from_here()
        from trustml_cli.run import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


def import_nothing_from_here() -> None:
    """Have no module of the current directory imported: not by its name, nor as a plugin, nor by processes of ours.

    `python -m` and `PYTHONPATH=.` would. Code that the user allows is looked for there by `trust.look_beside`.
    """
    here = os.path.realpath(os.curdir)
    if here == str(Path(__file__).resolve().parent.parent):  # a checkout that is not installed
        return
    sys.path[:] = [place for place in sys.path if os.path.realpath(place or os.curdir) != here]
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [place for place in places if place and os.path.realpath(place) != here]
    os.environ.update(PYTHONPATH=os.pathsep.join(kept), PYTHONSAFEPATH="1")


if __name__ == "__main__":
    main()
