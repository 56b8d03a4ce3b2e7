"""The frame that every stage script stands in: config, help, seed, device, progress, tables, tracking, provenance."""

from src.stage.context import Stage
from src.stage.entry import compose, entry_point

__all__ = ["Stage", "compose", "entry_point"]
