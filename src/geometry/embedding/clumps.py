"""Rows that lie in one direction with many others: tokens that training hardly ever met (spec F, BUG F-2).

Weight decay and the gradient of the vocabulary's softmax move all of them alike (Land and Bartolo 2024 find such tokens
by their cosine with known unused ones). Under any map between two models they agree nearly perfectly, whichever of
them a map was fitted on; so they are on neither side.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from src.geometry.directions import unit_rows
from src.geometry.embedding.rows import Rows

# cosine about the mean of all rows: words that mean the same stay well below it
ALIKE = 0.95
# so many in one direction are no synonyms
FEWEST = 5
_PROBES = 4096


def clumped_rows(rows: Rows, seed: int = 0) -> Bool[np.ndarray, " token"]:
    """Marks rows of clumps: at least 5 rows, linked by cosines above 0.95 about the mean of all rows.

    Up to 4,096 rows exactly. Of more, clumps are found among 4,096 that are drawn (one token in a thousand is four of
    them), and then any row within the cosine of a clump's mean direction is marked.
    """
    if len(rows) < FEWEST:
        return np.zeros(len(rows), bool)
    centre = torch.stack([block.sum(0) for _, block in rows.blocks()]).sum(0) / len(rows)
    probes = rows.sample(_PROBES, np.random.default_rng(seed))
    directions = unit_rows(rows.take(probes) - centre)
    clumps = _clumps(directions)
    marked = np.zeros(len(rows), bool)
    if len(probes) == len(rows):
        for members in clumps:
            marked[members] = True
    elif clumps:
        means = unit_rows(torch.stack([directions[torch.from_numpy(members)].mean(0) for members in clumps]))
        for places, block in rows.blocks():
            marked[places] = ((unit_rows(block - centre) @ means.T) > ALIKE).any(1).cpu().numpy()
    return marked


def _clumps(directions: Float[Tensor, "probe d"]) -> list[Int[np.ndarray, " member"]]:
    links = [
        np.stack(np.nonzero(((part @ directions.T) > ALIKE).cpu().numpy())) + np.array([[start], [0]])
        for start, part in zip(range(0, len(directions), 1024), directions.split(1024), strict=True)
    ]
    first, second = np.concatenate(links, axis=1)
    n = len(directions)
    of_row = connected_components(coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n)), False)[1]
    sizes = np.bincount(of_row)
    return [np.flatnonzero(of_row == clump) for clump in np.flatnonzero(sizes >= FEWEST)]
