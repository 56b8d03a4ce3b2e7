"""The config group protocol: which protocol measures a cloud, and what is changed of it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from src.config.schema import Schema

Fraction = Annotated[float, Field(gt=0, lt=1)]


class ProtocolConfig(Schema):
    """How clouds are measured (protocol.*; configs/protocol/). null = the protocol's own value."""

    name: Literal["robust", "frozen_v5", "todacomm"] = Field(
        description="robust = scaled by the median distance; frozen_v5 = as actopo 0.1.0; todacomm = as todacomm 0.1.0"
    )
    metric: Literal["euclidean", "cosine"] | None = Field(description="of the distances")
    scale: Literal["diameter", "median", "quantile_99"] | None = Field(
        description="the distance of two points that thresholds are fractions of: largest, median, 99th percentile"
    )
    betti_fraction: Fraction | None = Field(description="a longer bar, in units of the scale, counts as a feature")
    survival_fraction: Fraction | None = Field(description="a longer bar, in units of the scale, survives")
    max_dimension: Annotated[int, Field(ge=0)] | None = Field(description="highest dimension of homology")
    n_scale_steps: Annotated[int, Field(ge=2)] | None = Field(description="thresholds of the curves")
    pca_components: Annotated[int, Field(ge=1)] | Literal["none"] | None = Field(
        description="principal components that a cloud is reduced to first; none = its own coordinates"
    )
    max_points: Annotated[int, Field(ge=3)] | Literal["all"] | None = Field(
        description="sample larger clouds down to so many points, after PCA; all = never"
    )
    sampling: Literal["uniform", "multiscale", "adaptive", "farthest"] | None = Field(
        description="of protocol.max_points: uniform keeps the distribution, farthest the outline; multiscale and "
        "adaptive, as in todacomm, prefer neighbourhoods and dense regions"
    )

    def changes(self) -> dict[str, Any]:
        """What is changed of the protocol; None where something is switched off."""
        given = self.model_dump(exclude={"name"}, exclude_none=True)
        return {key: None if value in ("none", "all") else value for key, value in given.items()}
