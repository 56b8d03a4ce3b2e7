"""analyse_run.py: find the run, check what can be looked at, load the model where it is needed, look."""
