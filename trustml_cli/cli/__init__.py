"""The command line: run, list, compare and show."""
