"""Activations: captured from a model's hooks, stored in parts, and summed up as moments."""
