"""Multiruns: how one ends, how one is resumed, and what launchers need."""
