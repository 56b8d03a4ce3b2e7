"""What attention heads add to logits for the distance of a key alone: delta = key position - query position."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.models.checkpoint.rotary import Rotary

# spec E8
FARTHEST = 128


@dataclass(frozen=True, eq=False)
class DistanceBias:
    """Biases of the heads of a layer (or of all layers of a stack, layer = None) by delta = key - query."""

    source: str
    stack: str
    layer: int | None
    delta: Int[Tensor, "delta"]
    values: Float[Tensor, "head delta"]
    table: Float[Tensor, "bucket head"] | None = None

    @property
    def label(self) -> str:
        """Of the place, for readers."""
        return self.stack if self.layer is None else f"{self.stack} {self.layer}"


def deltas(bidirectional: bool) -> Int[Tensor, "delta"]:
    """The distances that are looked at: -128..0, and to 128 where keys after the query are seen."""
    return torch.arange(-FARTHEST, (FARTHEST if bidirectional else 0) + 1)


def relative_buckets(
    delta: Int[Tensor, "delta"], n_buckets: int, max_distance: int, bidirectional: bool
) -> Int[Tensor, "delta"]:
    """T5's buckets of distances (Raffel et al. 2020): exact while small, then logarithmic up to max_distance.

    Bidirectional: the first half are keys at or before the query, the second half those after it; the first of the
    second half is never used (spec E8). Otherwise keys after the query fall into bucket 0.
    """
    half = n_buckets // 2 if bidirectional else n_buckets
    distance = delta.abs() if bidirectional else -delta.clamp_max(0)
    exact = half // 2
    # in float32, as models are trained: bounds of buckets depend on it
    ratio = torch.log(distance.clamp_min(1).float() / exact) / torch.log(torch.tensor(max_distance / exact))
    logarithmic = (exact + (ratio * (half - exact)).long()).clamp_max(half - 1)
    bucket = torch.where(distance < exact, distance, logarithmic)
    return bucket + half * (delta > 0) if bidirectional else bucket


def bucket_bias(
    table: Float[Tensor, "bucket head"], delta: Int[Tensor, "delta"], max_distance: int, bidirectional: bool
) -> Float[Tensor, "head delta"]:
    """T5's relative position bias by distance."""
    return table.double()[relative_buckets(delta, len(table), max_distance, bidirectional).to(table.device)].T


def linear_bias(slopes: Float[Tensor, "head"], delta: Int[Tensor, "delta"]) -> Float[Tensor, "head delta"]:
    """ALiBi (Press et al. 2022): -slope * distance."""
    return -slopes.double()[:, None] * delta.abs().to(slopes.device)


def rotary_bias(
    q_bias: Float[Tensor, "head d_head"],
    k_bias: Float[Tensor, "head d_head"],
    rotary: Rotary,
    logit_scale: float,
    delta: Int[Tensor, "delta"],
) -> Float[Tensor, "head delta"]:
    """The part of logits under rotary positions that no content changes: scale * b_q' Rot(delta) b_k (spec E8)."""
    keys = k_bias.double()[..., None]
    turned = torch.stack([rotary.turned(keys, float(each))[..., 0] for each in delta.tolist()], -1)
    return logit_scale * torch.einsum("ha,had->hd", q_bias.double(), turned)


def position_kernel(
    queries: Float[Tensor, "head position d_head"],
    keys: Float[Tensor, "head position d_head"],
    logit_scale: float,
    delta: Int[Tensor, "delta"],
) -> Float[Tensor, "head delta"]:
    """Mean of scale * q_i . k_j over all positions i, j = i + delta, of what learned positions give queries and keys.

    NaN for distances that the positions do not have. A circular correlation by FFT.
    """
    n = queries.shape[1]
    size = 2 * n
    spectrum = torch.fft.rfft(queries.double(), size, dim=1).conj() * torch.fft.rfft(keys.double(), size, dim=1)
    sums = torch.fft.irfft(spectrum.sum(-1), size, dim=1)
    counts = n - delta.abs()
    found = logit_scale * sums[:, (delta % size).to(sums.device)] / counts.to(sums.device)
    found[:, counts <= 0] = torch.nan
    return found
