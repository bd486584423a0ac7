"""Pages that people read: a run, a sweep, or any runs side by side; each one file that opens without a network."""
