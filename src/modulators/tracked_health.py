"""Are the simplices of a field modulator whole? Measured while it is trained (spec H7)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from src.modulators.simplex_features import n_edges

# as they are called in files, and for readers
STATISTICS = {
    "log_volume": "log volume (mean)",
    "log_volume_low": "log volume (5 %)",
    "log_edge_ratio": "log edge ratio (mean)",
    "log_edge_ratio_high": "log edge ratio (95 %)",
}
_DECAY = 0.99
# positions of a pass that are looked at, at even distances
_POSITIONS = 256
_TAIL = 0.05


class TrackedHealth(nn.Module):
    """Running means over the passes of training, each pass weighing 0.99 times the next one's weight.

    Of each layer and expert: the mean and the lowest 5 % quantile of log V^2 relative to the template's, and the mean
    and the highest 5 % quantile of log(longest / shortest edge), over up to 256 positions of a pass. Means are over the
    weights that have been given, so that they do not begin at 0 (the mistake of spec H7). Buffers are saved and loaded
    with the modulator. A share of V^2 > 0 is not tracked: it is 1 for any points.
    """

    def __init__(self, n_layers: int, dimensions: Sequence[int]) -> None:
        super().__init__()
        self.dimensions = tuple(dimensions)
        self.sums: Tensor
        self.weight: Tensor
        self.register_buffer("sums", torch.zeros(n_layers, len(self.dimensions), len(STATISTICS)))
        self.register_buffer("weight", torch.zeros(n_layers))

    @torch.no_grad()
    def update(
        self, row: int, features: Sequence[Float[Tensor, "feature token"]], places: Int[Tensor, " place"]
    ) -> None:
        """Count the features of a pass at some of its tokens, of one layer."""
        found = torch.stack(
            [simplex_statistics(seen[:, places], k) for seen, k in zip(features, self.dimensions, strict=True)]
        )
        self.sums[row].lerp_(found.to(self.sums), 1 - _DECAY)
        self.weight[row].lerp_(torch.ones_like(self.weight[row]), 1 - _DECAY)

    def values(self) -> Float[Tensor, "layer expert statistic"]:
        """The running means, in the order of STATISTICS; NaN before the first pass."""
        return self.sums / self.weight[:, None, None]


def looked_at(lengths: Sequence[int]) -> Int[Tensor, " place"]:
    """Up to 256 tokens, evenly drawn from all of the texts of a pass: indices into its flattened [batch, pos].

    lengths: of the texts, which are padded on the right.
    """
    is_text = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    places = is_text.flatten().nonzero()[:, 0]
    return places[:: -(-len(places) // _POSITIONS)]


def simplex_statistics(features: Float[Tensor, "feature token"], k: int) -> Float[Tensor, " statistic"]:
    """STATISTICS of simplices, from their features (simplex_features)."""
    volume, ratio = features[-1], edge_ratios(features, k)
    tail = max(1, round(_TAIL * features.shape[-1]))
    low = volume.kthvalue(tail).values
    high = -(-ratio).kthvalue(tail).values
    return torch.stack([volume.mean(), low, ratio.mean(), high])


def edge_ratios(features: Float[Tensor, "feature token"], k: int) -> Float[Tensor, " token"]:
    """log(longest / shortest edge) of each simplex, from its features."""
    edges = features[: n_edges(k)]
    return (edges.amax(0) - edges.amin(0)) / 2
