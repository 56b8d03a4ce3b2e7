"""What a modulator does to a model, beside its controls: pure computations."""
