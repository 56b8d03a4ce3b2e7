"""What analysis=weights shows."""
