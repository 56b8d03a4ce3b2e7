"""Sections on captured and compared conversations."""
