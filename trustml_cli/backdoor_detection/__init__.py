"""Detectors of backdoors, one paper per file, and a supervised probe beside them."""
