"""What compare_geometry.py shows."""
