"""Training of modulators while the model stays as it is."""
