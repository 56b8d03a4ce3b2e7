"""How far apart points move over the layers, against models that learned nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from src.errors import StrataError


@dataclass(frozen=True)
class Expansion:
    """The expansion of one model's layers, and of its controls'.

    Attributes:
        over_first: the statistic of each layer over that of the first.
        ratio: the largest of these; peak: its layer's place in the order given.
        of_controls: ratio of each control. over_controls: ratio over their geometric mean.
        p: (1 + controls with a ratio as large) / (1 + controls): 1 / (1 + controls) at least.
    """

    over_first: Float[np.ndarray, "layer"]
    ratio: float
    peak: int
    of_controls: Float[np.ndarray, "control"]
    over_controls: float
    p: float


def expansion(normalised: Sequence[float], controls: Sequence[Sequence[float]]) -> Expansion:
    """The expansion ratio: the largest `h0_normalised` of all layers over that of the first (the embedding).

    A ratio of raw H0 totals, as todacomm's, is made by units, the final norm, and copies in the embedding (few tokens
    are last ones): untrained models have 2 to 112. This statistic has no unit. Copies lower it still, in the model and
    in its controls alike, which is why a ratio stands beside that of models with random weights on the same text,
    layers and tokens, one control per seed.

    Raises:
        StrataError: if there is no control, if one has another number of layers, or if a first layer has no distances.
    """
    if not len(controls):
        raise StrataError("an expansion ratio means nothing alone: measure a randomly initialised model too")
    layers = {len(normalised), *(len(control) for control in controls)}
    if len(layers) > 1 or layers == {0}:
        raise StrataError(f"the expansion ratio needs the same layers of model and control, there are {sorted(layers)}")
    over_first = np.array([_over_first(profile) for profile in (normalised, *controls)])
    ratios = over_first.max(axis=1)
    return Expansion(
        over_first=over_first[0],
        ratio=float(ratios[0]),
        peak=int(over_first[0].argmax()),
        of_controls=ratios[1:],
        over_controls=float(ratios[0] / np.exp(np.log(ratios[1:]).mean())),
        p=float((1 + (ratios[1:] >= ratios[0]).sum()) / (1 + len(controls))),
    )


def _over_first(profile: Sequence[float]) -> Float[np.ndarray, "layer"]:
    values = np.asarray(profile, dtype=np.float64)
    if not np.isfinite(values).all() or values[0] <= 0:
        raise StrataError(
            "a layer has no normalised H0 (its points are all alike, as last tokens' embeddings may be): choose other "
            "tokens, or leave that layer out"
        )
    return values / values[0]
