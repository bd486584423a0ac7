"""Backdoors: triggers, one paper per file, and how training images are poisoned with them."""
