"""Explainers: which pixels a classifier's answer comes from, one paper per file, and how good they are at it."""
