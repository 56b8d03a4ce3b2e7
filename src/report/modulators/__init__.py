"""What the stages of modulators show."""
