"""Out-of-distribution (OOD) scores, one paper per file, and their evaluation."""
