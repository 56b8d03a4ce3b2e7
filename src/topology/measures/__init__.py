"""Numbers of one cloud: from its diagram, its distances, its points."""
