"""measure_geometry.py analysis=layers."""

from pydantic import Field

from src.config.schema import Schema


class LayersConfig(Schema):
    """Norms, cosines and dimensions of states, layer by layer (layers.*)."""

    activations: str | None = Field(
        min_length=1, description="name or path of the store; null = the one of this model and dataset"
    )
