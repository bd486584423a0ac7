"""Data sets: read once, kept as uint8, handed out in batches."""
