"""What analysis=layers shows."""
