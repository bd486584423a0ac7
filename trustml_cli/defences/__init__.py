"""Ways to make a network resist attacks, one paper per file."""
