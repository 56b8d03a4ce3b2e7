"""Orthogonal Procrustes: the rotation or reflection, with or without a scale, that maps x closest to y."""

from collections.abc import Sequence

import torch

from src.activations.moments import Moments
from src.activations.products import exact_products
from src.hook_points import HookPoint
from src.transport.affine import AffineFit, bias_of, distinct, require_equal_widths, require_variation


def fit_procrustes(
    moments: Moments, source: HookPoint, targets: Sequence[HookPoint], groups: Sequence[int], *, scaled: bool
) -> dict[HookPoint, AffineFit]:
    """W = U V' with Sxy = U diag(s) V': the orthogonal W that minimises |Y - XW| over centred rows (Schoenemann 1966).

    scaled: times sum(s) / tr(Sxx), the best scale, as scipy.linalg.orthogonal_procrustes gives it; kept in the details.
    Raises StrataError if the source is constant, or a target has another width.
    """
    total = moments.subset(distinct(groups))
    require_variation(total, source)
    spread = total.square_scatter(source).sum()
    fits = {}
    for target in targets:
        width = require_equal_widths(total, source, target, "Procrustes")
        with exact_products():
            left, values, right = torch.linalg.svd(total.scatter(source, target))
            scale = values.sum() / spread if scaled else torch.ones_like(spread)
            weight = scale * (left @ right)
            bias = bias_of(total, source, target, weight)
        fits[target] = AffineFit(weight, bias, None, None, width, {"scale": float(scale)})
    return fits
