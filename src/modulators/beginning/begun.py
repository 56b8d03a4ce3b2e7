"""What a beginning hands to its modulator, and what is told of it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from src.modulators.beginning.beginning import Beginning
from src.modulators.beginning.lexical import RelationalQuality
from src.modulators.beginning.procrustes import MapQuality


@dataclass(frozen=True, eq=False)
class Begun:
    """Of a residual modulator `start`; of a field modulator `directions`, which its experts read (None: random ones).

    relations, map: how good the vectors are, and the map onto the residual stream, where there is one.
    """

    start: Beginning | None = None
    directions: Float[Tensor, "direction d_model"] | None = None
    relations: RelationalQuality | None = None
    map: MapQuality | None = None
