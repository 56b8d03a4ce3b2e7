"""The configs of the stages of geometry, a module for each analysis."""
