"""Persistent homology of clouds of activations: distances, diagrams, measures, nulls, comparisons, loops."""
