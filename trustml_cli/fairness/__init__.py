"""Fairness: how differently groups are treated, and how a classifier is made to treat them alike."""
