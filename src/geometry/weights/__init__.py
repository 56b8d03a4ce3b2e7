"""Matrices of weights: spectra, entries, neurons, norms, layers against each other; each beside what chance gives."""
