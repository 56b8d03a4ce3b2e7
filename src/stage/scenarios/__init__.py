"""capture_scenario.py: find scenarios and their models, check them, capture them item by item."""
