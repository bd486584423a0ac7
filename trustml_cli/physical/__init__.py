"""Patterns put into the scene, one paper per file, and how they are seen."""
