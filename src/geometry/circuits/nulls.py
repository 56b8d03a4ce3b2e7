"""Circuits of heads where nothing matches: Gaussian matrices, and queries that meet other heads' keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import factorial, prod

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor

from src.geometry.circuits.forms import FormStatistics, core_statistics


def gaussian_factors(
    d_model: int, widths: tuple[int, int], n: int, rng: np.random.Generator
) -> tuple[Float[Tensor, "draw rank left"], Float[Tensor, "draw rank right"]]:
    """Two independent Gaussian matrices [d_model, width] in a common orthonormal basis of their columns.

    The triangular factor of a Gaussian matrix is drawn as it is distributed (Bartlett 1933): chi with d_model - i
    degrees of freedom on the diagonal, Gaussian above it. On the CPU, float64.
    """
    columns = sum(widths)
    rank = min(d_model, columns)
    upper = np.triu(rng.standard_normal((n, rank, columns)), 1)
    diagonal = np.arange(rank)
    upper[:, diagonal, diagonal] = np.sqrt(rng.chisquare(d_model - diagonal, (n, rank)))
    factors = torch.from_numpy(upper)
    return factors[..., : widths[0]], factors[..., widths[0] :]


def gaussian_forms(d_model: int, d_head: int, n: int, rng: np.random.Generator) -> FormStatistics:
    """Statistics of Q'K for independent Gaussian Q and K: no alignment at all of queries and keys."""
    return core_statistics(*gaussian_factors(d_model, (d_head, d_head), n, rng))


@dataclass(frozen=True)
class NullComparison:
    """A value beside what chance gives. p: two-sided, (1 + as far from the mean as it) / (1 + draws)."""

    mean: float
    sd: float
    z: float
    p: float


def compare(values: Float[Tensor, "value"], draws: Float[Tensor, "draw"]) -> list[NullComparison]:
    """Each value against the same draws."""
    drawn = draws[draws.isfinite()].cpu()
    if not len(drawn):
        return [NullComparison(np.nan, np.nan, np.nan, np.nan) for _ in values]
    mean, sd = drawn.mean(), drawn.std() if len(drawn) > 1 else drawn.new_tensor(torch.nan)
    # values that differ by rounding are as far
    distance = (drawn - mean).abs().sort()[0] * (1 + 1e-9)
    found = []
    for value in values.cpu().double():
        beyond = len(drawn) - int(torch.searchsorted(distance, (value - mean).abs()))
        p = (1 + beyond) / (1 + len(drawn)) if bool(value.isfinite()) else np.nan
        found.append(NullComparison(float(mean), float(sd), float((value - mean) / sd), p))
    return found


@dataclass(frozen=True, eq=False)
class Pairing:
    """Pairs of query and key heads of one layer, each head with its own and with others of its block.

    query_head, key_head: of each pair. own: key head that each query head reads. block: of each query head.
    """

    query_head: Int[Tensor, "form"]
    key_head: Int[Tensor, "form"]
    own: Int[Tensor, "head"]
    block: Int[Tensor, "head"]

    @property
    def n_dealings(self) -> int:
        """Different ways to deal the query heads of each block to its keys: the smallest p is 1 over this."""
        ways = 1
        for block in self.block.unique():
            keys = self.own[self.block == block]
            ways *= factorial(len(keys)) // prod(factorial(int(n)) for n in keys.unique(return_counts=True)[1])
        return ways

    def matrix(self, values: Float[Tensor, "form"]) -> Float[Tensor, "head kv_head"]:
        """Values of pairs as a matrix; NaN for pairs that are not there."""
        n_keys = int(self.own.max()) + 1
        found = values.new_full((len(self.own), n_keys), torch.nan)
        found[self.query_head, self.key_head] = values
        return found


def pairing(n_heads: int, n_kv_heads: int, most: int, rng: np.random.Generator) -> Pairing:
    """All pairs inside of random blocks of at most `most` key heads (and their query heads)."""
    own = torch.arange(n_heads) // (n_heads // n_kv_heads)
    n_blocks = -(-n_kv_heads // most)
    block_of_key = torch.from_numpy(rng.permutation(np.arange(n_kv_heads) % n_blocks))
    block = block_of_key[own]
    pairs = (block[:, None] == block_of_key[None]).nonzero()
    return Pairing(pairs[:, 0], pairs[:, 1], own, block)


def own_and_others(
    matrix: Float[Tensor, "head kv_head"], paired: Pairing
) -> tuple[Float[Tensor, "head"], Float[Tensor, "other"]]:
    """The value of each head with the key that it reads, and those of all other pairs."""
    heads = torch.arange(len(matrix))
    others = matrix.clone()
    others[heads, paired.own] = torch.nan
    return matrix[heads, paired.own], others[others.isfinite()]


def permuted_means(
    matrix: Float[Tensor, "head kv_head"], paired: Pairing, n: int, rng: np.random.Generator
) -> Float[Tensor, "draw"] | None:
    """Means over heads where query heads are dealt anew to the places of their block; None with nothing to permute.

    Under the null, which key a query meets makes no difference, and every dealing is as likely as the model's own.
    """
    if all(len(paired.own[paired.block == block].unique()) < 2 for block in paired.block.unique()):
        return None
    # sorting random numbers within blocks deals the heads of each block to its own places
    order = torch.from_numpy(rng.random((n, len(matrix)))) + paired.block
    dealt = torch.empty(n, len(matrix), dtype=torch.long)
    dealt[:, paired.block.argsort(stable=True)] = order.argsort(-1)
    return matrix.cpu()[dealt, paired.own.expand(n, -1)].mean(-1)


def rejected(p: Mapping[tuple, float], level: float) -> dict[tuple, bool]:
    """Which hypotheses fall at a false discovery rate (Benjamini and Hochberg 1995); undefined ones never do."""
    known = {key: value for key, value in p.items() if np.isfinite(value)}
    adjusted = dict(zip(known, false_discovery_control(list(known.values())), strict=True)) if known else {}
    return {key: bool(adjusted.get(key, 1.0) <= level) for key in p}
