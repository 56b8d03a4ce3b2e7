"""What eval_modulator.py shows."""
