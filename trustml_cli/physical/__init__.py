"""Physical attacks, one paper per file, and the random transformations under which they are trained."""
