"""From YAML to objects: what choices there are, what they may name, and errors about them in one line."""
