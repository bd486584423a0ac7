"""`trustml`, and `python -m trustml_cli`."""

import sys

if sys.platform == "win32":  # files are locked and processes ended by the means of POSIX
    sys.stderr.write("trustml: error: runs on Linux and macOS; on Windows, run it in WSL\n")
    sys.exit(2)

from trustml_cli.system.import_path import leave_out_the_current_directory

leave_out_the_current_directory()

from trustml_cli.system.signals import exit_status, handle_termination  # noqa: E402
from trustml_cli.system.streams import forgive_streams  # noqa: E402


def main() -> None:
    """The command line; an interrupt is quiet from its very first import on."""
    try:
        forgive_streams()
        handle_termination()
        from trustml_cli.cli.main import main as run

        run()
    except KeyboardInterrupt as interrupt:
        sys.exit(exit_status(interrupt))


if __name__ == "__main__":
    main()
