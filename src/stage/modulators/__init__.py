"""The steps of the stages of modulators."""
