"""The notebook's check of a coefficient of variation, BUG H-8 included (spec H9)."""

import torch
from jaxtyping import Float
from torch import Tensor

from src.modulators.notebook.templates import notebook_volume

_DIMENSIONS, _SIMPLICES, _VERTICES = 8, 500, 5
_TARGET, _TOLERANCE = 0.21, 0.05


def notebook_cv_check(points: Float[Tensor, "point d"], seed: int) -> dict[str, float | bool]:
    """CV, mean volume and share of V^2 > 0 of 500 simplices of 5 points, and whether the CV is 0.21 +- 0.05.

    Only the first 8 dimensions are read (BUG H-8), and points are drawn with replacement. Without any V^2 > 0 the CV is
    NaN and `in_band` is left out, which the notebook's trainer takes for healthy.
    """
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(points), (_SIMPLICES, _VERTICES), generator=draws)
    _, squares = notebook_volume(points[:, :_DIMENSIONS].double()[rows])
    volumes = squares[squares > 0].sqrt()
    if not len(volumes):
        return {"cv": float("nan"), "mean": 0.0, "valid": 0.0}
    cv = float(volumes.std(correction=0) / volumes.mean())
    share = len(volumes) / _SIMPLICES
    return {"cv": cv, "mean": float(volumes.mean()), "valid": share, "in_band": abs(cv - _TARGET) < _TOLERANCE}
