"""Backdoors: triggers, one paper per file, and the poisoning of training images with them."""
