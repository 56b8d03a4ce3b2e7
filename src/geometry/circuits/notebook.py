"""QK and position bias as the published notebook computes them, mistakes included (spec E4, E8), and its pooled form.

Its matrix W_q W_k' is one of inner products between query and key units, across heads: not the form on the residual
stream (BUG E-6), and not a function of what the model computes. Pooling over heads is not what attention does (E-7).
Its classes of heads take bucket numbers for distances (E-9).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.circuits.forms import ZERO


def unit_products(
    q: Float[Tensor, "query_unit d_model"], k: Float[Tensor, "key_unit d_model"]
) -> Mapping[str, Any] | None:
    """The notebook's numbers of one attention layer, from raw weights; None where it stops (not a square matrix).

    stable_rank, participation: of the singular values of W_q W_k'. symmetry_deviation: |M - M'| / |M|.
    positive_fraction: positive among the nonzero eigenvalues of (M + M')/2, which it takes for "attraction".
    """
    if len(q) != len(k):
        return None
    return _square(q.double() @ k.double().mT, 0.0)


def pooled_form(q: Float[Tensor, "head d_head d_model"], k: Float[Tensor, "head d_head d_model"]) -> Mapping[str, Any]:
    """The same numbers of the sum of all heads' forms, A = sum_h Q_h'K_h [d_model, d_model]: what it meant to measure.

    Dense: made for comparison alone.
    """
    return _square(q.double().flatten(0, 1).mT @ k.double().flatten(0, 1), ZERO)


def _square(matrix: Float[Tensor, "unit unit"], zero: float) -> Mapping[str, Any]:
    singular = torch.linalg.svdvals(matrix)
    eigenvalues = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
    counted = eigenvalues.abs() > zero * eigenvalues.abs().max()
    n_positive, n_negative = (int((counted & side).sum()) for side in (eigenvalues > 0, eigenvalues < 0))
    return {
        "stable_rank": float(singular.square().sum() / singular[0].square()),
        "participation": float(singular.sum().square() / singular.square().sum()),
        "symmetry_deviation": float((matrix - matrix.mT).norm() / matrix.norm()),
        "n_positive": n_positive,
        "n_negative": n_negative,
        "positive_fraction": n_positive / max(n_positive + n_negative, 1),
        "top_5": eigenvalues.flip(0)[:5].tolist(),
    }


def bucket_heads(table: Float[Tensor, "bucket head"]) -> list[Mapping[str, Any]]:
    """The notebook's numbers of each head of a relative position table, from bucket numbers.

    local: the greatest bias lies in buckets 0 to 2; global: in the last three; mixed: elsewhere.
    """
    values = table.double().cpu().numpy()
    n_buckets = len(values)
    found = []
    for column in values.T:
        peak = int(column.argmax())
        steps = np.diff(column[: n_buckets // 2])
        flat = np.ptp(column) == 0
        found.append(
            {
                "range": float(np.ptp(column)),
                "non_increasing": float((steps <= 0).mean()),
                "bucket_correlation": None if flat else float(np.corrcoef(column, np.arange(n_buckets))[0, 1]),
                "peak_bucket": peak,
                "kind": "local" if peak <= 2 else "global" if peak >= n_buckets - 3 else "mixed",
            }
        )
    return found
