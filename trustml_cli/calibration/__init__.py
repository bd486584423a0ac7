"""Calibrators: a function behind a trained network, so that its softmax outputs are probabilities."""
