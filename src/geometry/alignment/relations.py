"""Are tokens alike in one space that are alike in the other? No map is needed: rotations change none of it.

Over all pairs of tokens, exactly, in O(n d^2): with rows of length 1 in U and V, sum_ij cos_ij(U) cos_ij(V) =
|U'V|_F^2, and sum_ij cos_ij = |sum of rows|^2; the n pairs (i, i) are taken off.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.directions import unit_rows

_GROUPS = 20
# tokens that are compared with each other; of more, as many are drawn
MOST_TOKENS = 4000


@dataclass(frozen=True)
class Relation:
    """One number of two spaces, with its error and what shuffled pairs give.

    low, high: 95 % by a jackknife over 20 groups of units. null, null_sd, p: over shuffles of the pairing; p of as much
    or more.
    """

    value: float
    low: float
    high: float
    null: float
    null_sd: float
    p: float


@dataclass(frozen=True)
class Relations:
    """Agreement of two spaces over tokens.

    pearson: of the cosines of all pairs of tokens. cka: linear CKA. debiased_cka: with the unbiased HSIC; about 0 for
    unrelated spaces whatever their width. rms_difference, mean_difference: of the cosines of all pairs, the mean of
    absolute values.
    """

    pearson: Relation
    cka: Relation
    debiased_cka: Relation
    rms_difference: float
    mean_difference: float
    n_tokens: int


def relations(
    x: Float[Tensor, "token d"],
    y: Float[Tensor, "token e"],
    unit: Int[np.ndarray, " token"],
    shuffles: int,
    seed: int,
) -> Relations:
    """Compare two spaces over the same tokens, as the rows come (centre them, or not, beforehand).

    Rows without a length have cosine 0 with all others.
    """
    spaces = _Space(x), _Space(y)
    names = ("pearson", "cka", "debiased")
    value = dict(zip(names, _agreement(*spaces), strict=True))
    left_out = [_agreement(_Space(x[rest]), _Space(y[rest])) for rest in _without_groups(unit, seed)]
    random = np.random.default_rng([seed, 2])
    orders = [torch.from_numpy(random.permutation(len(x))).to(x.device) for _ in range(shuffles)]
    null = [_agreement(*spaces, order) for order in orders]
    found = {}
    for place, name in enumerate(names):
        replicates, drawn = ([each[place] for each in draws] for draws in (left_out, null))
        # the jackknife's variance: (g - 1) / g times the sum of squares about the mean
        spread = 1.96 * float(np.sqrt((len(replicates) - 1) * np.var(replicates))) if replicates else np.nan
        p = (1 + sum(each >= value[name] for each in drawn)) / (1 + shuffles)
        mean, sd = (float(np.mean(drawn)), float(np.std(drawn))) if drawn else (np.nan, np.nan)
        found[name] = Relation(value[name], value[name] - spread, value[name] + spread, mean, sd, p)
    u, v = spaces[0].directions.rows, spaces[1].directions.rows
    return Relations(
        found["pearson"], found["cka"], found["debiased"], rms_difference(u, v), mean_difference(u, v), len(x)
    )


def _without_groups(unit: Int[np.ndarray, " token"], seed: int) -> list[Tensor]:
    """The tokens that are left when each group of units is taken out."""
    of_token = np.unique(unit, return_inverse=True)[1]
    n_units = int(of_token.max()) + 1
    n_groups = min(_GROUPS, n_units)
    if n_groups < 2:
        return []
    dealt = np.random.default_rng([seed, 3]).permutation(n_units) % n_groups
    return [torch.from_numpy(np.flatnonzero(dealt[of_token] != group)) for group in range(n_groups)]


class _Kernel:
    """The products of all rows with all others, x_i . x_j, known by their sums."""

    def __init__(self, rows: Float[Tensor, "token d"]) -> None:
        self.rows, self.n = rows, len(rows)
        self.own = rows.square().sum(1)

    @cached_property
    def of_row(self) -> Float[Tensor, "token"]:
        """Sum over the others."""
        return self.rows @ self.rows.sum(0) - self.own

    @cached_property
    def total(self) -> Tensor:
        """Sum over all ordered pairs."""
        return self.of_row.sum()

    @cached_property
    def squares(self) -> Tensor:
        """Sum of squares over all ordered pairs."""
        return self.inner(self)

    def inner(self, other: "_Kernel", order: Tensor | None = None) -> Tensor:
        """Sum of products with another kernel over all ordered pairs of tokens, that one in another order."""
        rows, own = (other.rows, other.own) if order is None else (other.rows[order], other.own[order])
        return (self.rows.T @ rows).square().sum() - self.own @ own


class _Space:
    """One space: the kernel of directions, and that of centred rows."""

    def __init__(self, rows: Float[Tensor, "token d"]) -> None:
        self.directions = _Kernel(unit_rows(rows))
        self.centred = _Kernel(rows - rows.mean(0))


def _agreement(x: _Space, y: _Space, order: Tensor | None = None) -> tuple[float, float, float]:
    """Pearson's r of cosines, linear CKA, debiased CKA; the second space's tokens in another order."""
    return (_pearson(x.directions, y.directions, order), *_cka(x.centred, y.centred, order))


def _pearson(u: _Kernel, v: _Kernel, order: Tensor | None) -> float:
    n_pairs = u.n * (u.n - 1)
    mean_u, mean_v = u.total / n_pairs, v.total / n_pairs
    joint = u.inner(v, order) / n_pairs - mean_u * mean_v
    spreads = [(each.squares / n_pairs - mean.square()).clamp(min=0) for each, mean in ((u, mean_u), (v, mean_v))]
    return float(joint / (spreads[0] * spreads[1]).sqrt())


def _cka(x: _Kernel, y: _Kernel, order: Tensor | None) -> tuple[float, float]:
    """|X'Y|_F^2 / (|X'X|_F |Y'Y|_F) of centred rows (Kornblith et al. 2019, eq. 8), and the same of unbiased HSICs."""
    joint = x.inner(y, order)
    own = y.own if order is None else y.own[order]
    sizes = [each.squares + each.own.square().sum() for each in (x, y)]
    plain = (joint + x.own @ own) / (sizes[0] * sizes[1]).sqrt()
    joint_hsic = _unbiased_hsic(x, y, joint, order)
    size = _unbiased_hsic(x, x, x.squares, None) * _unbiased_hsic(y, y, y.squares, None)
    return float(plain), float(joint_hsic / size.clamp(min=torch.finfo(size.dtype).tiny).sqrt())


def _unbiased_hsic(x: _Kernel, y: _Kernel, joint: Tensor, order: Tensor | None) -> Tensor:
    """Song et al. (2012), eq. 5, times n (n - 3)."""
    of_row = y.of_row if order is None else y.of_row[order]
    return joint + x.total * y.total / ((x.n - 1) * (x.n - 2)) - 2 * (x.of_row @ of_row) / (x.n - 2)


def rms_difference(u: Float[Tensor, "token d"], v: Float[Tensor, "token e"]) -> float:
    """Root mean square of the difference of cosines over all pairs of tokens; rows of length 1."""
    first, second = _Kernel(u), _Kernel(v)
    total = first.squares + second.squares - 2 * first.inner(second)
    return float((total.clamp(min=0) / (len(u) * (len(u) - 1))).sqrt())


def mean_difference(u: Float[Tensor, "token d"], v: Float[Tensor, "token e"]) -> float:
    """Mean absolute difference of cosines over all pairs of tokens; rows of length 1. In blocks of rows."""
    own = float((u.square().sum(1) - v.square().sum(1)).abs().sum())
    total = sum(float((a @ u.T - b @ v.T).abs().sum()) for a, b in zip(u.split(1024), v.split(1024), strict=True))
    return (total - own) / (len(u) * (len(u) - 1))
