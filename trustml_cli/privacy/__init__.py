"""Membership inference attacks, one paper per file, and their evaluation."""
