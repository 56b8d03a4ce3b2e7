"""How unevenly a cloud fills its space: cosines, principal variances, the offset from the origin."""

import numpy as np
from jaxtyping import Float

from src.topology.homology.distances import centred, checked_points


def anisotropy(points: Float[np.ndarray, "point d"]) -> dict[str, float]:
    """Statistics of the points themselves, none of which a change of unit alters.

    mean_cosine: mean cosine similarity of two different rows about the origin, rows of zeros left out (Ethayarajh
    2019); offset: norm of the mean over the root mean square distance from it, which is what makes mean_cosine large in
    most models. Of the eigenvalues v of the covariance of d dimensions: first_component_share: v_1 / sum v;
    participation_ratio: (sum v)^2 / sum v^2; effective_rank: exp(-sum p ln p), p = v / sum v (Roy and Vetterli 2007, of
    variances); isoscore: (participation_ratio - 1) / (d - 1), 0 on a line and 1 where all variances are equal. The last
    is IsoScore of Rudman et al. 2022, whose seven steps come to that. n points span n - 1 dimensions at most, so
    with n near d or below, compare clouds of like n only.

    What has no meaning is NaN: variances of copies of one point, isoscore of one dimension.

    Raises:
        StrataError: if `points` is not a matrix of 3 or more finite rows.
    """
    points = checked_points(points)
    mean, variances = points.mean(axis=0), principal_variances(points)
    total = float(variances.sum())
    shares = variances[variances > 0] / total if total > 0 else np.full(1, np.nan)
    participation = float(1 / np.square(shares).sum())
    d = points.shape[1]
    return {
        "mean_cosine": _mean_cosine(points),
        "offset": float(np.linalg.norm(mean) / np.sqrt(total)) if total > 0 else float("nan"),
        "first_component_share": float(shares.max()),
        "participation_ratio": participation,
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())),
        "isoscore": (participation - 1) / (d - 1) if d > 1 else float("nan"),
    }


def principal_variances(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "component"]:
    """Eigenvalues of the covariance (over n), largest first, from the smaller of its two Gram matrices."""
    about = centred(points)
    gram = about.T @ about if about.shape[0] > about.shape[1] else about @ about.T
    return np.maximum(np.linalg.eigvalsh(gram)[::-1] / len(points), 0.0)


def _mean_cosine(points: Float[np.ndarray, "point d"]) -> float:
    norms = np.linalg.norm(points, axis=1)
    units = points[norms > 0] / norms[norms > 0, None]
    n = len(units)
    if n < 2:
        return float("nan")
    return float(np.clip((np.square(units.sum(axis=0)).sum() - n) / (n * (n - 1)), -1, 1))
