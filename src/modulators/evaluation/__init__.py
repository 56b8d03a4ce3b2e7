"""What a trained modulator does to a model, beside controls of equal strength."""
