"""Volumes of random simplices of a cloud of points, and what clouds without structure give."""
