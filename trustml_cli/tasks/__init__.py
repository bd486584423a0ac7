"""One task handler per file, and the modules that the handlers share."""
