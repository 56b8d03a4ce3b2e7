"""Words of a taxonomy as a model represents them, and their cosines against distances in the taxonomy."""
