"""Figures: each function takes plain records and returns one Altair chart."""
