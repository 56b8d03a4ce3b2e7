"""The config of compare_geometry.py: its keys, their types and limits, and what --help says of them."""

from pydantic import Field

from src.config.shared import Names, StageConfig


class CompareGeometryConfig(StageConfig):
    """compare_geometry.py."""

    results: Names = Field(
        description="names or paths of results of measure_geometry.py; all = of this experiment_name, the newest of "
        "each model and analysis"
    )
    published: bool = Field(description="set the published notebook's figures beside those measured")
