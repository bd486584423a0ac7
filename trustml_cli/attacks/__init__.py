"""Attacks: pure functions of torch tensors, one paper per file, and what is measured of them."""
