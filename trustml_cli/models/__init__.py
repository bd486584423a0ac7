"""Networks, each built for a data set's input shape and classes; they map pixels in [0, 1] to logits."""
