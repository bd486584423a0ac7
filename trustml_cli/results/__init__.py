"""Run directories: writing them, reading them, and aggregating many runs."""
