"""Geometry of embeddings, layers, lexicons and weights. Pure functions on tensors: no config, no disk, no logging."""
