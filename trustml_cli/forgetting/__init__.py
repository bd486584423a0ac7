"""Methods that make a network forget its backdoor."""
