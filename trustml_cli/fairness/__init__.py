"""Fairness: metrics of how differently groups are treated, and methods of debiasing a classifier."""
