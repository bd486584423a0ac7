"""Adversarial attacks as pure functions of torch tensors, one paper per file, and their evaluation."""
