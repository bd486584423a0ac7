"""Metric columns, confidence intervals and the bootstrap."""
