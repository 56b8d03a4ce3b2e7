"""The published notebook's own quantities of simplices, mistakes included (spec B; compat=notebook)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.simplices.moments import CloudMoments

SEED = 42
K = 4
N_SIMPLICES = 1000
N_JOINT = 500
# the notebook's determinant for k = 4: V^2 = -det / 9216
_NORMALISATION = -9216.0


@dataclass(frozen=True)
class NotebookVolumes:
    """As the notebook prints them; ratios of the mean volume to that of each of its two nulls."""

    n_valid: int
    mean: float
    std: float
    cv: float
    minimum: float
    maximum: float
    median: float
    ratio_entry_std: float
    ratio_dimension_std: float


def notebook_volumes(
    table: Float[Tensor, "row d"], moments: CloudMoments, n_simplices: int = N_SIMPLICES
) -> NotebookVolumes:
    """1,000 pentachora of rows of the whole table (padding and special rows too), numpy's Generator with seed 42.

    The nulls are Gaussian: one standard deviation of all entries (the T5 notebook), one per dimension (the Qwen one);
    neither knows the covariance or the norms. moments: of the whole table. NaN where the table has fewer than 5 rows.
    """
    if len(table) <= K:
        return NotebookVolumes(0, *[math.nan] * 8)
    draws = np.random.default_rng(SEED)
    found = _positive(_squared_volumes(_rows(table, _index_sets(len(table), n_simplices, draws))))
    nulls = []
    for spread in (moments.entry_std, moments.dimension_std.cpu().numpy()):
        vertices = (draws.standard_normal((K + 1, table.shape[1])) * spread for _ in range(n_simplices))
        squared = np.concatenate([_squared_volumes(points[None]) for points in vertices])
        nulls.append(_positive(squared).mean())
    if not len(found):
        return NotebookVolumes(0, *[math.nan] * 8)
    mean, std = float(found.mean()), float(found.std())
    ratios = [mean / float(null) for null in nulls]
    extremes = (float(found.min()), float(found.max()), float(np.median(found)))
    return NotebookVolumes(len(found), mean, std, std / mean, *extremes, *ratios)


def notebook_joint_r(first: Float[Tensor, "row d1"], second: Float[Tensor, "row d2"]) -> float:
    """Pearson r of the volumes of 500 index sets in two spaces, with BUG B-1.

    Each list loses its non-positive V^2 by itself, and both are cut to the shorter length: after the first rejected
    simplex, volumes of different simplices are paired.
    """
    draws = np.random.default_rng(SEED)
    if len(first) <= K:
        return math.nan
    sets = _index_sets(len(first), N_JOINT, draws)
    lists = [_positive(_squared_volumes(_rows(table, sets))) for table in (first, second)]
    length = min(map(len, lists))
    return float(np.corrcoef(lists[0][:length], lists[1][:length])[0, 1]) if length > 1 else math.nan


def _index_sets(n_rows: int, n_sets: int, draws: np.random.Generator) -> np.ndarray:
    return np.array([draws.choice(n_rows, K + 1, replace=False) for _ in range(n_sets)])


def _rows(table: Float[Tensor, "row d"], sets: np.ndarray) -> np.ndarray:
    return table[torch.from_numpy(sets).to(table.device)].double().cpu().numpy()


def _squared_volumes(vertices: Float[np.ndarray, "simplex vertex d"]) -> Float[np.ndarray, " simplex"]:
    """Cayley-Menger determinants in float64."""
    bordered = np.ones((len(vertices), K + 2, K + 2))
    bordered[:, 0, 0] = 0
    for row in range(K + 1):
        bordered[:, row + 1, 1:] = np.square(vertices[:, row, None] - vertices).sum(axis=2)
    return np.linalg.det(bordered) / _NORMALISATION


def _positive(squared: Float[np.ndarray, " simplex"]) -> Float[np.ndarray, " valid"]:
    return np.sqrt(squared[squared > 0])
