"""One handler per file; each reads like the recipe that it follows."""
