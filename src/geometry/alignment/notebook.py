"""The published notebook's alignment, mistakes included, so that its numbers can stand beside ours (spec F, F1 to F8).

Kept as it is there: rows are paired by id, padding and special rows with them; the "scale factor" is a sum of singular
values and is not applied (BUG F-1); best and worst tokens include the anchors (BUG F-2); volumes that are not positive
are dropped from each space by itself, so that later simplices stand beside others (BUG B-1); cosines are not centred.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

SEED = 42
PCA_ROWS = 50_000
ANCHORS = 10_000
TEST = 5_000
RELATIONAL, UNALIGNED = 1_000, 500
SIMPLICES = 1_000
BEST = 50
EIGENVALUES = 200
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


@dataclass(frozen=True, eq=False)
class NotebookAlignment:
    """What the notebook computes.

    numbers: one by one, by name. best, worst: ids and cosines, of all rows. eigenvalues: of the residual. by_id: cosine
    of every 100th row.
    """

    numbers: Mapping[str, float]
    best: tuple[tuple[int, float], ...]
    worst: tuple[tuple[int, float], ...]
    eigenvalues: Float[np.ndarray, " eigenvalue"]
    by_id: Float[np.ndarray, " row"]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "numbers": dict(self.numbers),
            "best": [list(pair) for pair in self.best],
            "worst": [list(pair) for pair in self.worst],
            "eigenvalues": self.eigenvalues.tolist(),
            "cosine_of_every_100th": self.by_id.tolist(),
        }


def notebook_alignment(
    source: Float[np.ndarray, "row d_source"], target: Float[np.ndarray, "row d_target"], digits: Sequence[int | None]
) -> NotebookAlignment:
    """Align tables whose rows are of the same ids; digits: ids of '0' to '9', None for those that are no one token.

    In a vocabulary of less than 15,000 rows two thirds are the anchors, and at most 5,000 of the rest the test tokens.
    """
    n = min(len(source), len(target))
    source, target = source[:n].astype(np.float64), target[:n].astype(np.float64)
    random = np.random.default_rng(SEED)
    sample = source[random.choice(n, min(PCA_ROWS, n), replace=False)]
    centre = sample.mean(0)
    _, singular, components = np.linalg.svd(sample - centre, full_matrices=False)
    width = min(target.shape[1], len(components))
    projected = (source - centre) @ components[:width].T
    order = random.permutation(n)
    n_anchors = ANCHORS if n >= ANCHORS + TEST else 2 * n // 3
    anchors, test = order[:n_anchors], order[n_anchors : n_anchors + TEST]
    mean_a, mean_b = projected[anchors].mean(0), target[anchors].mean(0)
    u, strengths, v = np.linalg.svd((projected[anchors] - mean_a).T @ (target[anchors] - mean_b), full_matrices=False)
    aligned = (projected - mean_a) @ (u @ v) + mean_b

    cosine = _cosine(aligned, target)
    distance = np.linalg.norm(aligned[test] - target[test], axis=1)
    held = cosine[test]
    numbers = {
        "rows": n,
        "anchors": len(anchors),
        "test_tokens": len(test),
        "retained_variance": float((singular[:width] ** 2).sum() / (singular**2).sum()),
        "scale_factor": float(strengths.sum()),
        "cosine_mean": float(held.mean()),
        "cosine_std": float(held.std()),
        "cosine_median": float(np.median(held)),
        "cosine_min": float(held.min()),
        "cosine_max": float(held.max()),
        **{f"cosine_p{p}": float(np.percentile(held, p)) for p in PERCENTILES},
        "l2_mean": float(distance.mean()),
        "l2_std": float(distance.std()),
        "l2_median": float(np.median(distance)),
    }
    numbers |= _pairwise("relational", aligned[test[:RELATIONAL]], target[test[:RELATIONAL]])
    numbers |= _pairwise("unaligned", source[test[:UNALIGNED]], target[test[:UNALIGNED]])
    found = np.array([token for token in digits if token is not None and token < n], np.int64)
    if len(found) > 2:
        numbers |= _pairwise("digits", aligned[found], target[found])
        numbers["digits_cosine_mean"] = float(cosine[found].mean())
    numbers |= {f"share_above_{place / 10:g}": float((cosine > place / 10).mean()) for place in range(10)}
    numbers |= _volumes(aligned, target, random)
    residual = target[test] - aligned[test]
    eigenvalues = np.linalg.eigvalsh(residual.T @ residual / len(test))[::-1][:EIGENVALUES]
    ranked = np.argsort(-cosine, kind="stable")
    pairs = [(int(token), float(cosine[token])) for token in ranked]
    return NotebookAlignment(numbers, tuple(pairs[:BEST]), tuple(pairs[::-1][:BEST]), eigenvalues, cosine[::100])


def _cosine(a: Float[np.ndarray, "row d"], b: Float[np.ndarray, "row d"]) -> Float[np.ndarray, " row"]:
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(1) / np.maximum(size, 1e-12)


def _pairwise(name: str, a: Float[np.ndarray, "token d"], b: Float[np.ndarray, "token e"]) -> dict[str, float]:
    """Correlation and mean absolute difference of the cosines of all pairs in two spaces."""
    upper = np.triu_indices(len(a), 1)
    first, second = ((unit @ unit.T)[upper] for unit in (_unit(a), _unit(b)))
    return {
        f"{name}_r": float(np.corrcoef(first, second)[0, 1]),
        f"{name}_difference": float(np.abs(first - second).mean()),
    }


def _unit(rows: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row d"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _volumes(
    aligned: Float[np.ndarray, "row d"], target: Float[np.ndarray, "row d"], random: np.random.Generator
) -> dict[str, float]:
    drawn = np.stack([random.choice(len(target), 5, replace=False) for _ in range(SIMPLICES)])
    sides = []
    for rows in (aligned, target):
        squared = np.array([_squared_volume(rows[five]) for five in drawn])
        sides.append(np.sqrt(squared[squared > 0]))
    shorter = min(map(len, sides))
    first, second = sides
    return {
        "volume_mean_aligned": float(first.mean()),
        "volume_mean_target": float(second.mean()),
        "volume_cv_aligned": float(first.std() / first.mean()),
        "volume_cv_target": float(second.std() / second.mean()),
        "volume_ratio": float(first.mean() / second.mean()),
        "volume_r": float(np.corrcoef(first[:shorter], second[:shorter])[0, 1]),
        "volume_valid_aligned": len(first),
        "volume_valid_target": len(second),
    }


def _squared_volume(points: Float[np.ndarray, "5 d"]) -> float:
    """By the Cayley-Menger determinant of a 4-simplex."""
    bordered = np.ones((6, 6))
    bordered[0, 0] = 0
    bordered[1:, 1:] = np.square(points[:, None] - points[None]).sum(2)
    return float(-np.linalg.det(bordered) / 9216)
