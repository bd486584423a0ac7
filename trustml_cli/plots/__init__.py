"""Pictures of results. Every function returns a matplotlib figure; the recorder saves it."""
