"""Experiment trackers that show a run in progress, one tracker per file."""
