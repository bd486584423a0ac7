"""Networks, each built for a data set's shape and classes. Pixels in [0, 1] go in, logits come out."""
