"""Data sets: decoded once, stored as uint8, and iterated in batches."""
