"""Trainers, the store of trained networks, and prediction on whole splits."""
