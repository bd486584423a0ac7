"""What a run leaves behind, how it is read again, and how many runs are put together."""
