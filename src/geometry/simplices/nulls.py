"""Clouds without structure that share more and more with a cloud of points (spec B3)."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.simplices.moments import CloudMoments

# what each shares with the data; the last one is the null that structure has to exceed
NULLS: Mapping[str, str] = {
    "entry_std": "one spread for all entries",
    "dimension_std": "the spread of each dimension",
    "covariance": "the covariance",
    "covariance_and_norms": "the covariance and the norms",
}
MATCHED = "covariance_and_norms"


def principal_spreads(moments: CloudMoments) -> Float[Tensor, " d"]:
    """Square roots of the eigenvalues of the covariance, of the dimensions in the order of torch.linalg.eigvalsh."""
    return torch.linalg.eigvalsh(moments.covariance).clamp(min=0).sqrt()


def null_points(
    name: str,
    moments: CloudMoments,
    spreads: Float[Tensor, " d"],
    norms: Float[Tensor, " drawn"],
    draws: np.random.Generator,
) -> Float[Tensor, "drawn d"]:
    """Centred Gaussian points of a null of `NULLS`, as many as there are norms.

    The nulls of the covariance lie along its principal axes: volumes know no rotation. spreads: `principal_spreads`.
    norms: of the centred points that the null stands beside; with `covariance_and_norms`, null point i has the norm of
    point i.
    """
    normal = torch.from_numpy(draws.standard_normal((len(norms), len(spreads)))).to(spreads)
    if name == "entry_std":
        return normal * moments.entry_std
    if name == "dimension_std":
        return normal * moments.dimension_std
    if name not in NULLS:
        raise ValueError(f"null {name!r}: choose from {', '.join(NULLS)}")
    gaussian = normal * spreads
    return gaussian if name == "covariance" else _with_norms(gaussian, norms, draws)


def _with_norms(
    gaussian: Float[Tensor, "drawn d"], norms: Float[Tensor, " drawn"], draws: np.random.Generator
) -> Float[Tensor, "drawn d"]:
    """Gaussian points that are given other norms, as an elliptical cloud has them.

    In such a cloud (a Gaussian times an independent scale) points along directions of much variance are longer. Norms
    that are dealt out blindly would flatten the covariance and raise the CV, so that every elliptical cloud would seem
    to have structure. Log norms are to correlate with those of the Gaussian by the ratio of their spreads, which is
    what an independent scale makes of them.
    """
    tiny = torch.finfo(torch.float64).tiny
    own = gaussian.norm(dim=1).clamp(min=tiny)
    log_own = own.log()
    # a point at the mean itself would drown the spread of all others
    log_norms = norms[norms > 0].log() if (norms > 0).any() else own.new_zeros(1)
    spread, wanted = float(log_own.std(correction=0)), float(log_norms.std(correction=0))
    shared = min(1.0, spread / wanted) if wanted > 0 else 1.0
    noise = torch.from_numpy(draws.standard_normal(len(norms))).to(gaussian)
    standard = (log_own - log_own.mean()) / max(spread, tiny)
    order = (shared * standard + (1 - shared**2) ** 0.5 * noise).argsort()
    by_norm = norms.argsort()
    points = torch.empty_like(gaussian)
    points[by_norm] = gaussian[order] * (norms[by_norm] / own[order])[:, None]
    return points
