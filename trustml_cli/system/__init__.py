"""System layer: files, locks, devices, memory, random numbers, streams, and the two kinds of errors."""
