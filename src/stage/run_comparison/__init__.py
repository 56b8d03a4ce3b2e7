"""The parts of compare_runs.py: which captured runs are compared, and with what."""
