"""What analysis=lexicon shows."""
