"""What align_models.py shows."""
