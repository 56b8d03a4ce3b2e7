"""The published notebook's own modulators, mistakes included (compat=notebook)."""
