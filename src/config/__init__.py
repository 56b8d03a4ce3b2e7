"""Typed config schemas: what a stage accepts, and the messages for what it does not."""
