"""Changes of images that nobody aims at the network: shifts and common corruptions."""
