"""Read conversations and reference texts with a model, and keep the states that a scenario asks for."""

from src.scenarios.capturing.conversation import capture_conversation
from src.scenarios.capturing.orders import Reading, readings_of
from src.scenarios.capturing.references import capture_references

__all__ = ["Reading", "capture_conversation", "capture_references", "readings_of"]
