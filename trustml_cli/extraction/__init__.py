"""Model extraction: a victim that answers queries, and thieves that rebuild it from the answers."""
