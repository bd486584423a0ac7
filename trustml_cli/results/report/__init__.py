"""HTML reports of a run, a sweep, or several runs compared; each is one self-contained file."""
