"""The configs of the stages of modulators."""
