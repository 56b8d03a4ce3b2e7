"""Strata: the package that the stage scripts share. docs/architecture.md tells which room may import which."""
