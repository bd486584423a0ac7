"""Defences against adversarial examples, one paper per file."""
