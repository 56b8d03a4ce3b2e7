"""Words' vectors turned onto a model's states of the words, and how well that does for words it was not fitted on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.geometry.alignment.maps import AffineMap, orthogonal_map
from src.geometry.alignment.scatter import Scatter
from src.geometry.alignment.scores import Interval, UnitBootstrap, cosines
from src.modulators.beginning.beginning import Beginning

_BOOTSTRAP = 1000


@dataclass(frozen=True, eq=False)
class MapQuality:
    """Cosines of predicted and true states, both less the anchors' mean: what all words share earns nothing.

    held_out: mean over words that took no part in the fit (BUG G-4). by_layer: the same for each layer's own states.
    fitted: over the anchors themselves, which chance alone makes large. null_mean, null_high: of held_out after fits on
    anchors whose partners are shuffled, mean and 95th percentile. p: (1 + draws of as much or more) / (1 + draws).
    shared: length of the anchors' mean target over the root mean square length of all targets: how much of the targets
    is the same for all words.
    """

    held_out: Interval
    by_layer: Mapping[int, Interval]
    fitted: float
    null_mean: float
    null_high: float
    p: float
    shared: float
    n_anchors: int
    n_held_out: int


def fit_map(vectors: Float[Tensor, "anchor part"], states: Float[Tensor, "anchor d_model"]) -> AffineMap:
    """Map z to (z - mean z) s R + mean state: R by orthogonal Procrustes, s so that deviations are as long as states'.

    The means are carried along (BUG G-5). The least-squares scale would shrink targets to the mean where the fit is
    poor; lengths are matched instead (spec G5).

    Raises:
        StrataError: no more anchors than numbers in a vector.
    """
    scatter = Scatter.of(vectors, states)
    turned = orthogonal_map(scatter)
    length = scatter.yy.trace() / scatter.xx.trace()
    return replace(turned, weight=turned.weight * length.sqrt(), settings={"scale": float(length.sqrt())})


def map_quality(
    found: AffineMap,
    anchors: tuple[Float[Tensor, "anchor part"], Float[Tensor, "anchor d_model"]],
    held_out: tuple[Float[Tensor, "word part"], Float[Tensor, "word d_model"]],
    by_layer: Mapping[int, tuple[Float[Tensor, " d_model"], Float[Tensor, "word d_model"]]],
    draws: int,
    seed: int,
) -> MapQuality:
    """Judge a map on words that it was not fitted on, beside maps of shuffled anchors.

    Args:
        found: from `fit_map` of these anchors.
        anchors: vectors and states.
        held_out: the same of other words.
        by_layer: the anchors' mean state in each layer, and the other words' states there.
        draws: shuffles.
        seed: of shuffles and intervals.
    """
    vectors, states = (part.double() for part in anchors)
    asked, true = (part.double() for part in held_out)
    bootstrap = UnitBootstrap(np.arange(len(asked)), _BOOTSTRAP, seed)
    predicted, true = found.centred(asked), true - found.target_centre
    centred, deviations = vectors - found.source_centre, states - found.target_centre
    random = torch.Generator().manual_seed(seed)
    drawn = np.empty(draws)
    for place in range(draws):
        order = torch.randperm(len(states), generator=random)
        # as fit_map does, without the scatter of the states, which is the same in any order
        u, _, v = torch.linalg.svd(centred.T @ deviations[order], full_matrices=False)
        drawn[place] = float(cosines((asked - found.source_centre) @ u @ v, true).mean())
    scores = cosines(predicted, true).numpy()
    targets = found.centred(vectors) + found.target_centre
    return MapQuality(
        bootstrap.mean(scores),
        {
            layer: bootstrap.mean(cosines(predicted, rows.double() - mean.double()).numpy())
            for layer, (mean, rows) in by_layer.items()
        },
        float(cosines(found.centred(vectors), deviations).mean()),
        float(drawn.mean()),
        float(np.quantile(drawn, 0.95)),
        (1 + int((drawn >= scores.mean()).sum())) / (1 + draws),
        float(found.target_centre.norm() / targets.square().sum(1).mean().sqrt()),
        len(vectors),
        len(asked),
    )


def with_map(start: Beginning, found: AffineMap, factor: float, length: float) -> Beginning:
    """P and b such that P g + b is the map's target of z, for g = factor z, times `length`.

    Columns of P beyond the vectors keep what they were, at the same size.
    """
    part = len(found.weight)
    projection = start.projection.clone()
    turned = (found.weight / factor * length).T
    projection[:, :part] = turned.to(projection)
    # untrained columns as long as fitted ones: one learning rate for both
    rest = projection[:, part:].norm(dim=0).mean() if projection.shape[1] > part else torch.ones(())
    projection[:, part:] *= turned.norm(dim=0).mean().to(projection) / rest
    offset = (found.target_centre - found.source_centre @ found.weight) * length
    return replace(start, projection=projection, offset=offset.to(start.offset))
