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
# with more points for each dimension the covariance of a sample is the population's, as far as volumes go
_MANY_POINTS = 30
# spreads below this part of the greatest one are rounding: the points lie in fewer dimensions
_FLAT = 1e-6


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
    if name not in NULLS:
        raise ValueError(f"null {name!r}: choose from {', '.join(NULLS)}")
    if name in ("covariance", MATCHED):
        kept = spreads[spreads > _FLAT * spreads.max()][-max(1, moments.n_points - 1) :]
        standard = torch.from_numpy(draws.standard_normal((len(norms), len(kept)))).to(spreads)
        some = _with_sample_covariance(standard, moments.n_points, draws) * kept
        gaussian = torch.nn.functional.pad(some, (len(spreads) - len(kept), 0))
        return gaussian if name == "covariance" else _with_norms(gaussian, norms, draws)
    normal = torch.from_numpy(draws.standard_normal((len(norms), len(spreads)))).to(spreads)
    if name == "entry_std":
        return normal * moments.entry_std
    return normal * moments.dimension_std


def _with_sample_covariance(
    normal: Float[Tensor, "drawn rank"], n_points: int, draws: np.random.Generator
) -> Float[Tensor, "drawn rank"]:
    """Normal points as part of a sample of `n_points` whose mean is 0 and whose covariance is exactly the identity.

    The covariance that a null is given is that of a sample. Points drawn freely with it would have one that differs
    once more, with fewer effective dimensions and a higher CV, so that every cloud of few points would seem to have
    less spread than chance. Given its mean and covariance, a Gaussian sample is just such a whitened one. The points
    beyond those drawn enter by their scatter alone (a Wishart matrix, by Bartlett's decomposition).
    """
    n_drawn, rank = normal.shape
    if n_points > _MANY_POINTS * rank or n_points <= rank or n_drawn < 2:
        return normal
    rest = n_points - n_drawn
    other = torch.from_numpy(draws.standard_normal(rank)).to(normal) / max(rest, 1) ** 0.5
    mean = (normal.sum(dim=0) + rest * other) / n_points
    centred = normal - mean
    scatter = centred.T @ centred + rest * torch.outer(other - mean, other - mean)
    if rest > 1:
        factor = torch.from_numpy(_wishart_factor(rank, rest - 1, draws)).to(normal)
        scatter += factor @ factor.T
    root = torch.linalg.cholesky(scatter / (n_points - 1))
    return torch.linalg.solve_triangular(root, centred.T, upper=False).T.contiguous()


def _wishart_factor(rank: int, freedom: int, draws: np.random.Generator) -> Float[np.ndarray, "rank column"]:
    """F of a Wishart matrix FF': the points themselves where they are few, else Bartlett's triangle (1933)."""
    if freedom < rank:
        return draws.standard_normal((rank, freedom))
    factor = np.tril(draws.standard_normal((rank, rank)), -1)
    np.fill_diagonal(factor, np.sqrt(draws.chisquare(freedom - np.arange(rank))))
    return factor


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
