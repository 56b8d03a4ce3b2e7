"""measure_geometry.py analysis=simplices."""

from pydantic import Field

from src.config.schema import Schema


class SimplicesConfig(Schema):
    """Volumes of random simplices of embeddings (simplices.*)."""

    k: int = Field(ge=1, description="dimension of the simplices: k + 1 tokens each")
    n_simplices: int = Field(ge=1, description="simplices drawn")
