"""Vectors of tokens that have none, from those of the tokens whose embeddings are nearest."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.directions import unit_rows

_COSINES_AT_ONCE = 1 << 24


def nearest_rows(
    rows: Float[Tensor, "row d"], among: Float[Tensor, "candidate d"], n: int
) -> tuple[Float[Tensor, "row neighbour"], Int[Tensor, "row neighbour"]]:
    """Cosines with the n most similar candidates, and which they are; memory does not grow with the rows."""
    units = unit_rows(among).T.contiguous()
    cosines, places = [], []
    for block in unit_rows(rows).split(max(1, _COSINES_AT_ONCE // max(len(among), 1))):
        found = (block @ units).topk(min(n, len(among)), dim=1)
        cosines.append(found.values)
        places.append(found.indices)
    return torch.cat(cosines), torch.cat(places)


def interpolate(
    rows: Float[Tensor, "token d"],
    anchors: Float[Tensor, "anchor d"],
    vectors: Float[Tensor, "anchor part"],
    neighbours: int,
    temperature: float,
) -> Float[Tensor, "token part"]:
    """Means of the vectors of the nearest anchors, with weights softmax(temperature * cosine) (spec G4).

    Cosines are of embeddings about the anchors' mean: what all words share says nothing of which are near. A mean of
    vectors that do not agree is short, and its length is kept.

    Args:
        rows: embeddings of the tokens that vectors are wanted for.
        anchors: of those that have one.
        vectors: theirs.
        neighbours: how many take part (all, if there are fewer).
        temperature: 0 would be a plain mean.
    """
    if not len(rows):
        return vectors.new_zeros(0, vectors.shape[1])
    mean = anchors.double().mean(0)
    cosines, places = nearest_rows(rows.double() - mean, anchors.double() - mean, neighbours)
    weights = (temperature * cosines).softmax(1).to(vectors)
    return (weights[:, :, None] * vectors[places]).sum(1)
