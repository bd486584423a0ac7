"""`trustml`, and `python -m trustml_cli`."""

import sys


def main() -> None:
    """The command line; an interrupt is quiet from its very first import on."""
    try:
        from trustml_cli.run import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
