"""measure_topology.py: from a config to clouds, and from clouds to what was found."""
