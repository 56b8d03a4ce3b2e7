"""measure_geometry.py analysis=weights."""

from pydantic import Field

from src.config.schema import Schema


class WeightsConfig(Schema):
    """Spectra, sparsity, circuits and neurons of weights; no data, no inference (weights.*)."""

    circuits: bool = Field(description="QK and OV circuits of every head, and their null")
    subspace_rank: int = Field(
        ge=1, description="leading directions of each matrix whose overlap between layers is measured"
    )
