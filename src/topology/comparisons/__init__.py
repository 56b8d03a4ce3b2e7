"""Two clouds or more: tests, distances between diagrams, paired measures, all layers against all layers."""
