"""Explainers: attributions of a logit to pixels, one paper per file, and their evaluation."""
