"""From YAML to objects: which choices exist, what they may refer to, and one-line errors."""
