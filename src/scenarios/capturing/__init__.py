"""From a scenario and a model to states: templates, forward passes, generation."""
