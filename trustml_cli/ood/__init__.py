"""Scores of how far an image is from the training distribution, one paper per file, and what is measured of them."""
