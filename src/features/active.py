"""The features that fire at each token, and what they add to it: all that is above 0 of an SAE's encoding.

Of AbsTopK SAEs that is the positive side alone, as everywhere in scores and cards.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from src.features.sae import Sae

_NUMBERS_AT_ONCE = 2**25  # in one chunk of feature activations


@dataclass(frozen=True, eq=False)
class ActiveFeatures:
    """One entry for each token and feature that fires there, by token.

    token: its row. feature: its place among the wanted features. activation: z. contribution: what multiplies the
    feature's decoder row in the reconstruction; z, but for SAEs that normalise rows.
    """

    token: Int[Tensor, " entry"]
    feature: Int[Tensor, " entry"]
    activation: Float[Tensor, " entry"]
    contribution: Float[Tensor, " entry"]


def active_features(
    sae: Sae, rows: Float[Tensor, "token d_model"], features: Int[Tensor, " feature"] | None = None
) -> Iterator[ActiveFeatures]:
    """The active features of rows, chunk by chunk of tokens (one at least), on the SAE's device.

    rows: moved there. features: only these, which are then counted as they stand here; None = all.
    """
    at_once = max(1, _NUMBERS_AT_ONCE // sae.n_features)
    for first in range(0, max(1, len(rows)), at_once):
        x = rows[first : first + at_once].to(sae.device, sae.module.dtype)
        z = sae.encode(x)
        z = z if features is None else z[:, features]
        token, feature = (z > 0).nonzero(as_tuple=True)
        activation = z[token, feature]
        yield ActiveFeatures(token + first, feature, activation, activation * sae.contribution_scale(x)[token, 0])
