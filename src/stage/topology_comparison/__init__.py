"""compare_topology.py: which results, which of their clouds and points belong together, and what is found."""
