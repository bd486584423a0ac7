"""How a measured value is written down: columns, intervals, draws with replacement."""
