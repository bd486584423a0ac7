"""Multiruns: their results and exit status, resumption, and changes to Hydra's launchers."""
