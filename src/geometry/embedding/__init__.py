"""Embedding and unembedding matrices: norms, cosines, spectra, ordered sets, categories. Pure functions on rows."""
