"""The command line as Python functions, for notebooks and scripts."""
