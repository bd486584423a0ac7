"""Trainers, and what is measured of a network once it is trained."""
