"""Measures of all layers against all layers: of one model with itself, or of two models that read the same prompts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from src.errors import StrataError
from src.topology.homology.distances import Distances, centred

# rows of every layer's Gram matrix that are held at a time
_ROWS = 64


def cka_matrices(
    first: Sequence[Float[np.ndarray, "pair _"]], second: Sequence[Float[np.ndarray, "pair _"]] | None = None
) -> tuple[Float[np.ndarray, "layer other"], Float[np.ndarray, "layer other"]]:
    """Linear CKA of all layers with all others, and the debiased one (see paired.py for both).

    Gram matrices are made in blocks of rows: memory is layers times 64 n beside the clouds, not layers times n^2.

    Args:
        first: clouds whose rows are the same prompts.
        second: those of another model; None = the first ones themselves.

    Raises:
        StrataError: if the clouds have different numbers of rows, or fewer than 4.
    """
    ours = [centred(points) for points in first]
    theirs = ours if second is None else [centred(points) for points in second]
    sizes = {len(points) for points in (*ours, *theirs)}
    if len(sizes) != 1 or min(sizes) < 4:
        raise StrataError(f"layers are compared over the same 4 or more rows: these clouds have {sorted(sizes)}")
    products = np.zeros((2, len(ours), len(theirs)))
    squares = [np.zeros((2, len(ours))), np.zeros((2, len(theirs)))]
    for start in range(0, sizes.pop(), _ROWS):
        rows = slice(start, start + _ROWS)
        left = _gram_rows(ours, rows)
        right = left if theirs is ours else _gram_rows(theirs, rows)
        products += left @ right.transpose(0, 2, 1)
        for side, block in zip(squares, (left, right), strict=True):
            side += np.einsum("klp,klp->kl", block, block)
    with np.errstate(invalid="ignore"):
        plain, debiased = products / np.sqrt(squares[0][:, :, None] * squares[1][:, None, :])
    return plain, debiased


def rsa_matrix(
    first: Sequence[Distances], second: Sequence[Distances] | None = None
) -> Float[np.ndarray, "layer other"]:
    """Spearman's correlation of the distances of all layers with those of all others; rows are the same prompts.

    Raises:
        StrataError: if the clouds have different numbers of points.
    """
    sizes = {distances.n_points for distances in (*first, *(second or ()))}
    if len(sizes) != 1:
        raise StrataError(f"layers are compared over the same points: these clouds have {sorted(sizes)}")
    ours = _standard_ranks(first)
    return ours @ (ours if second is None else _standard_ranks(second)).T


def _gram_rows(clouds: Sequence[np.ndarray], rows: slice) -> Float[np.ndarray, "kind layer entry"]:
    """Rows of the Gram matrices of centred clouds, and of the U-centred ones (paired.py), flattened."""
    plain = np.stack([points[rows] @ points.T for points in clouds])
    n = plain.shape[2]
    diagonal = np.stack([np.square(points).sum(axis=1) for points in clouds])
    # rows of a centred Gram matrix add up to 0: without the diagonal, to minus the diagonal
    sums, total = -diagonal, -diagonal.sum(axis=1)
    unbiased = plain - (sums[:, rows, None] + sums[:, None, :]) / (n - 2)
    unbiased += (total / ((n - 1) * (n - 2)))[:, None, None]
    here = np.arange(plain.shape[1])
    unbiased[:, here, rows.start + here] = 0.0
    return np.stack([plain, unbiased]).reshape(2, len(clouds), -1)


def _standard_ranks(clouds: Sequence[Distances]) -> Float[np.ndarray, "layer pair_of_points"]:
    above = np.triu_indices(clouds[0].n_points, 1)
    ranks = np.stack([rankdata(distances.matrix[above]) for distances in clouds])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, norms, out=np.full_like(ranks, np.nan), where=norms > 0)
