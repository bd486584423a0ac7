"""Side by side with peers: ratios of medians, measured in turn in one process, after equal results were seen."""
