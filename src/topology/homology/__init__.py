"""Distances of a cloud, the persistent homology of their Vietoris-Rips filtration, cycles and cocycles of its bars."""
