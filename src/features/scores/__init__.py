"""What a feature is worth: coherence, focus, redundancy, effects, and the scores that come of them."""
