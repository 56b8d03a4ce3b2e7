"""align_models.py: which rows of two models belong together, and what is measured on them."""
