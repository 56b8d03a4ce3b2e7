"""Captured scenarios on disk."""
