"""The steps of eval_modulator.py."""
