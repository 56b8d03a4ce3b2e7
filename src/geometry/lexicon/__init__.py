"""Taxonomies, where they are read from, and distances of senses in them."""
