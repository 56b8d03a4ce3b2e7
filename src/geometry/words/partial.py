"""The correlation of cosines with distances that is left when other properties of the pairs are held fixed."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from src.geometry.words.pair_sums import JackknifeEstimate, jackknife_error, row_blocks


def partial_correlation(
    units: Float[Tensor, "word d"],
    distances: UInt8[Tensor, "word word"],
    scores: Mapping[int, float],
    properties: Sequence[Float[np.ndarray, "word"]],
) -> JackknifeEstimate:
    """The partial correlation over all pairs of cosine and score, given sums and absolute differences of properties.

    A property of words (log frequency, log norm) becomes two of pairs: its sum (for log norms, the log of their
    product) and its difference. From the covariances C of all: r = -P_12 / sqrt(P_11 P_22) with P = C^-1. The error is
    the jackknife's over words. Properties that are the same for all words drop out; NaN if nothing varies.

    Args:
        units: rows of length 1.
        distances: of the words.
        scores: of each distance that takes part; pairs at others are left out.
        properties: of the words.
    """
    n, device, dtype = len(units), units.device, units.dtype
    table, connected = torch.zeros(2, 256, dtype=dtype, device=device)
    for distance, score in scores.items():
        table[distance], connected[distance] = score, 1
    varying = [(values - values.mean()) / values.std() for values in map(np.asarray, properties) if values.std() > 0]
    held = [torch.from_numpy(values).to(device, dtype) for values in varying]
    size = 3 + 2 * len(held)
    moments = torch.zeros(n, size, size, dtype=torch.float64)
    for start, stop in row_blocks(n, size):
        block = distances[start:stop].long()
        kept = connected[block]
        kept[torch.arange(stop - start), torch.arange(start, stop)] = 0
        variables = [torch.ones_like(kept), units[start:stop] @ units.T, table[block]]
        for values in held:
            ours = values[start:stop, None]
            variables += [ours + values, (ours - values).abs()]
        stacked = torch.stack(variables, 1) * kept[:, None]
        moments[start:stop] = (stacked @ stacked.mT).cpu().double()
    whole = moments.sum(0) / 2
    value = float(_partial(whole[None].numpy())[0])
    left = _partial((whole - moments).numpy())
    return JackknifeEstimate(value, jackknife_error(left))


def _partial(moments: Float64[np.ndarray, "case variable variable"]) -> Float64[np.ndarray, "case"]:
    """Of the first two variables after the constant, given the rest."""
    n, sums = moments[:, 0, 0], moments[:, 0, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums / n[:, None]
        covariance = moments[:, 1:, 1:] / n[:, None, None] - mean[:, :, None] * mean[:, None, :]
        scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        correlation = covariance / scale[:, :, None] / scale[:, None, :]
    found = np.full(len(moments), np.nan)
    good = np.isfinite(correlation).all((1, 2)) & (scale[:, :2] > 1e-12).all(1)
    # pinv: sums and differences of properties may depend on each other
    precision = np.linalg.pinv(correlation[good], hermitian=True)
    found[good] = -precision[:, 0, 1] / np.sqrt(precision[:, 0, 0] * precision[:, 1, 1])
    return found
