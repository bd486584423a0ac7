"""Plots of results; every function returns a matplotlib figure, and the recorder saves it."""
