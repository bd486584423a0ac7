"""Model extraction: a victim behind a query interface, and attacks ("thieves") that rebuild it from its answers."""
