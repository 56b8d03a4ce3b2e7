"""How much of each cloud's diagram is found again in the diagram of their union."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree

from src.errors import StrataError
from src.topology.homology.persistence import Bars

# Of the largest death: two units in the last place of float32.
_LAST_DIGITS = 2.0**-22


@dataclass(frozen=True)
class Preserved:
    """The finite bars of one cloud that the union has too.

    Attributes:
        n_bars, n_preserved: all, and those found again.
        lifetime, preserved_lifetime: sums of their lifetimes.
    """

    n_bars: int
    n_preserved: int
    lifetime: float
    preserved_lifetime: float

    @property
    def share(self) -> float:
        """Of the bars; NaN where there are none."""
        return self.n_preserved / self.n_bars if self.n_bars else np.nan

    @property
    def lifetime_share(self) -> float:
        """Of the lifetimes; NaN where there are none."""
        return self.preserved_lifetime / self.lifetime if self.lifetime else np.nan


@dataclass(frozen=True)
class PreservedBars:
    """What becomes of the bars of two clouds in their union.

    Attributes:
        first, second: of each cloud.
        n_new: finite bars of the union that neither cloud has.
        longest_new: the longest lifetime among them.
        by: whether bars were recognised by their edges, or by birth and death alone.
    """

    first: Preserved
    second: Preserved
    n_new: int
    longest_new: float
    by: str


def preserved_bars(first: Bars, second: Bars, union: Bars, n_first: int, tolerance: float = 1e-6) -> PreservedBars:
    """Find the finite bars of two clouds in the diagram of their union, each bar of the union for one of theirs.

    A bar is preserved if the edges at which it is born and dies are the same two pairs of points. Where a backend tells
    no edges, births and deaths are compared; so they are, to the last digits of float32, with those bars of the union
    whose edges lie within the cloud: where distances tie (lattices) it is an accident which edge a bar names.

    Args:
        first: bars of one cloud.
        second: bars of the other, of the same dimension.
        union: bars of the first cloud's points followed by the second's.
        n_first: points of the first cloud.
        tolerance: by which births and deaths may differ, relative to the largest death; for bars without edges.

    Raises:
        StrataError: for bars of different dimensions.
    """
    if not first.dimension == second.dimension == union.dimension:
        raise StrataError(
            f"bars of dimensions {first.dimension}, {second.dimension} and {union.dimension} can't be found in another"
        )
    largest = float(union.finite.max(initial=0.0))
    in_first, in_second, whole = _edges(first, 0), _edges(second, n_first), _edges(union, 0)
    if in_first is not None and in_second is not None and whole is not None:
        kept = [_shared(in_first, whole), _shared(in_second, whole)]
        inside = (whole < n_first).all(axis=1), ((whole >= n_first) | (whole < 0)).all(axis=1)
        for (ours, found), bars, within in zip(kept, (first, second), inside, strict=True):
            left = within & ~found
            ours[~ours], found[left] = _matched(bars.finite[~ours], union.finite[left], _LAST_DIGITS * largest)
        found, by = kept[0][1] | kept[1][1], "edges"
    else:
        both = np.concatenate([first.finite, second.finite])
        matched, found = _matched(both, union.finite, tolerance * largest)
        kept, by = [(part, found) for part in np.split(matched, [len(first.finite)])], "birth and death"
    new = np.diff(union.finite[~found]).ravel()
    return PreservedBars(
        _preserved(first, kept[0][0]), _preserved(second, kept[1][0]), len(new), float(new.max(initial=0.0)), by
    )


def _preserved(bars: Bars, kept: Bool[np.ndarray, " finite_bar"]) -> Preserved:
    lifetimes = np.diff(bars.finite).ravel()
    return Preserved(len(kept), int(kept.sum()), float(lifetimes.sum()), float(lifetimes[kept].sum()))


def _edges(bars: Bars, offset: int) -> Int[np.ndarray, "finite_bar 4"] | None:
    """Birth and death edge of each finite bar, as points of the union."""
    if bars.birth_edge is None or bars.death_edge is None:
        return None
    edges = np.concatenate([np.sort(bars.birth_edge, axis=1), np.sort(bars.death_edge, axis=1)], axis=1)
    edges = edges[np.isfinite(bars.death)]
    return np.where(edges >= 0, edges + offset, edges)


def _shared(ours: Int[np.ndarray, "bar 4"], union: Int[np.ndarray, "union_bar 4"]) -> tuple[np.ndarray, np.ndarray]:
    """Which of our bars the union has, and which of the union's we have."""
    known, wanted = {tuple(bar) for bar in union.tolist()}, {tuple(bar) for bar in ours.tolist()}
    return (
        np.array([tuple(bar) in known for bar in ours.tolist()], dtype=bool),
        np.array([tuple(bar) in wanted for bar in union.tolist()], dtype=bool),
    )


def _matched(
    ours: Float[np.ndarray, "bar 2"], union: Float[np.ndarray, "union_bar 2"], slack: float
) -> tuple[Bool[np.ndarray, " bar"], Bool[np.ndarray, " union_bar"]]:
    """Which bars find a partner when as many as possible are paired, births and deaths at most `slack` apart."""
    found = np.zeros(len(union), dtype=bool)
    if not len(ours) or not len(union):
        return np.zeros(len(ours), dtype=bool), found
    near = KDTree(ours).query_ball_tree(KDTree(union), slack, p=np.inf)
    starts = np.cumsum([0, *map(len, near)])
    columns = np.concatenate([np.asarray(each, dtype=np.int64) for each in near])
    graph = csr_array((np.ones(len(columns), dtype=np.int8), columns, starts), shape=(len(ours), len(union)))
    partner = maximum_bipartite_matching(graph, perm_type="column")
    found[partner[partner >= 0]] = True
    return partner >= 0, found
