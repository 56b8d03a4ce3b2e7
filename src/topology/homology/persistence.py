"""Persistence diagrams of Vietoris-Rips filtrations, over Z/2."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from src.errors import StrataError
from src.topology.homology.backends import OTHERS, Diagrams
from src.topology.homology.distances import Distances
from src.topology.homology.memory import require_memory

Backend = Literal["auto", "reduced", "gudhi", "ripser"]

# Two backends agree when no birth and no death differs by more than this part of the diameter.
_TOLERANCE = 1e-6
# Two points share half of an edge's 64-bit key in the compiled engine.
_MAX_POINTS = 1 << 16


@dataclass(frozen=True)
class Bars:
    """The bars of one dimension, longest first; bars without length are not kept.

    Attributes:
        birth, death: scales (float32 values, as float64); death is infinite for the component that never dies.
        birth_edge, death_edge: the edge (two points) whose entry begins and ends each bar, -1 where there is none;
            None from backends that do not tell.
    """

    dimension: int
    birth: Float[np.ndarray, "bar"]
    death: Float[np.ndarray, "bar"]
    birth_edge: Int[np.ndarray, "bar 2"] | None = None
    death_edge: Int[np.ndarray, "bar 2"] | None = None

    def __len__(self) -> int:
        return len(self.birth)

    @property
    def lifetimes(self) -> Float[np.ndarray, "bar"]:
        """Death - birth."""
        return self.death - self.birth

    @property
    def diagram(self) -> Float[np.ndarray, "bar 2"]:
        """Birth and death, side by side."""
        return np.stack([self.birth, self.death], axis=1)

    @property
    def finite(self) -> Float[np.ndarray, "finite_bar 2"]:
        """Birth and death of the bars that die."""
        return self.diagram[np.isfinite(self.death)]


@dataclass(frozen=True)
class Generators:
    """What the classes of H1 are made of: cycles that one edge closes over the minimum spanning tree.

    Attributes:
        tree: the edges of the minimum spanning tree, shortest first.
        edge: the edges that close a cycle which no triangles fill when they enter, shortest first.
        offset, member: H1 bar k is the sum of the cycles closed by the edges member[offset[k] : offset[k + 1]].
    """

    tree: Int[np.ndarray, "join 2"]
    edge: Int[np.ndarray, "generator 2"]
    offset: Int[np.ndarray, "bar+1"]
    member: Int[np.ndarray, "member"]

    def of(self, bar: int) -> Int[np.ndarray, "closing_edge 2"]:
        """The closing edges of an H1 bar."""
        return self.edge[self.member[self.offset[bar] : self.offset[bar + 1]]]


@dataclass(frozen=True)
class Persistence:
    """The diagrams of one cloud: `bars[k]` are those of dimension k. `generators`: if H1 is from our own engine."""

    n_points: int
    bars: tuple[Bars, ...]
    backend: str
    generators: Generators | None = None


def persistence(
    distances: Distances,
    max_dimension: int = 1,
    backend: Backend = "auto",
    check: bool = False,
    memory_limit: int | None = None,
) -> Persistence:
    """The diagrams of the Vietoris-Rips filtration up to `max_dimension`, over Z/2.

    Distances are rounded to float32, by every backend alike. Scales end at the enclosing radius, where the complex is
    a cone: only one component lives for ever.

    Args:
        distances: of one or more points.
        max_dimension: of the homology.
        backend: `reduced` is the exact engine for H0 and H1 of `reduced_rips`, `gudhi` and `ripser` (if installed)
            know any dimension; `auto` takes `reduced` for H0 and H1, and gudhi for what is above.
        check: compute again with another backend, and compare.
        memory_limit: bytes that the engine may use beside the distances; what the machine has free, if None.

    Raises:
        StrataError: if the backend does not know such a dimension or is not installed, if there is no point, if memory
            does not suffice (before it is taken), or if `check` finds a bar that differs.
    """
    if backend not in get_args(Backend):
        raise StrataError(f"backend {backend} is not known: choose one of {', '.join(get_args(Backend))}")
    if max_dimension < 0:
        raise StrataError(f"max_dimension is {max_dimension}: homology begins at dimension 0")
    if backend == "reduced" and max_dimension > 1:
        raise StrataError(f"backend reduced knows H0 and H1, not H{max_dimension}: use backend auto or gudhi")
    if distances.n_points == 0:
        raise StrataError("a cloud without points has no persistence diagram")
    if not distances.diameter <= float(np.finfo(np.float32).max):
        raise StrataError(f"the largest distance, {distances.diameter:g}, is beyond float32: scale the points down")
    if backend in OTHERS:
        diagrams = _other(backend, distances, max_dimension)
        found = Persistence(distances.n_points, tuple(_unedged(k, each) for k, each in enumerate(diagrams)), backend)
    else:
        found = _reduced(distances, max_dimension, memory_limit)
    if check:
        _compare(found, distances)
    return found


def estimate_memory(n_points: int) -> int:
    """Bytes that backend `reduced` needs at its peak, beside the distance matrix (which has 8 n^2).

    While edges are sorted each has a key of 8 bytes, twice; then neighbours are bits, and what grows with the bars is
    small beside these.
    """
    return 8 * n_points**2 + n_points * ((n_points + 511) // 512) * 64 + 512 * n_points + 2**20


def _reduced(distances: Distances, max_dimension: int, memory_limit: int | None) -> Persistence:
    n_points = distances.n_points
    if n_points > _MAX_POINTS:
        raise StrataError(f"{n_points} points are more than {_MAX_POINTS}: take a subsample")
    require_memory(estimate_memory(n_points), n_points, "persistence diagrams", memory_limit)
    from src.topology.homology.reduced_rips import reduced_rips  # imports numba

    found = reduced_rips(distances.matrix)
    ever = np.array([np.inf]), np.array([[-1, -1]])
    no_edge = np.full((n_points, 2), -1)
    components, _ = _sorted_bars(
        0,
        np.zeros(n_points),
        np.concatenate([found.tree_length, ever[0]]),
        no_edge,
        np.concatenate([found.tree, ever[1]]),
    )
    loops, kept = _sorted_bars(
        1, found.generator_length[found.pivot], found.death_length, found.generator[found.pivot], found.death
    )
    bars, name = [components, loops][: max_dimension + 1], "reduced"
    if max_dimension > 1:
        diagrams = _other("gudhi", distances, max_dimension)
        bars += [_unedged(k, diagrams[k]) for k in range(2, max_dimension + 1)]
        name = "reduced, gudhi above H1"
    members = [found.member[found.offset[k] : found.offset[k + 1]] for k in kept]
    offset = np.cumsum([0, *map(len, members)])
    generators = Generators(found.tree, found.generator, offset, np.concatenate([*members, np.empty(0, np.int64)]))
    return Persistence(n_points, tuple(bars), name, generators if max_dimension else None)


def _other(backend: str, distances: Distances, max_dimension: int) -> Diagrams:
    return OTHERS[backend](distances.matrix.astype(np.float32), max_dimension)


def _unedged(dimension: int, diagram: Float[np.ndarray, "bar 2"]) -> Bars:
    birth, death = np.asarray(diagram, dtype=np.float64).T
    order = np.lexsort([birth, birth - death])
    return Bars(dimension, birth[order], death[order])


def _sorted_bars(
    dimension: int,
    birth: Float[np.ndarray, "candidate"],
    death: Float[np.ndarray, "candidate"],
    birth_edge: Int[np.ndarray, "candidate 2"],
    death_edge: Int[np.ndarray, "candidate 2"],
) -> tuple[Bars, Int[np.ndarray, "bar"]]:
    """The bars that have a length, longest first (then by birth and edges), and which candidates they are."""
    birth, death = birth.astype(np.float64), death.astype(np.float64)
    order = np.lexsort([*death_edge.T[::-1], *birth_edge.T[::-1], birth, birth - death])
    order = order[death[order] > birth[order]]
    return Bars(dimension, birth[order], death[order], birth_edge[order], death_edge[order]), order


def _compare(found: Persistence, distances: Distances) -> None:
    dimension = len(found.bars) - 1
    if found.backend == "reduced":
        other = "gudhi"
    else:
        other = "reduced" if dimension <= 1 else "ripser" if found.backend != "ripser" else "gudhi"
    second = persistence(distances, dimension, other)
    tolerance = _TOLERANCE * distances.diameter
    for mine, theirs in zip(found.bars, second.bars, strict=True):
        # infinite deaths are equal, or else differ infinitely
        for bar in range(max(len(mine), len(theirs))):
            pair = [each.diagram[bar] if bar < len(each) else np.zeros(2) for each in (mine, theirs)]
            if not np.allclose(*pair, rtol=0, atol=tolerance):
                said = [
                    f"{name} has [{each[0]:g}, {each[1]:g})" if each.any() else f"{name} has none"
                    for name, each in zip((found.backend, other), pair, strict=True)
                ]
                raise StrataError(f"backends differ: H{mine.dimension} bar {bar}: {said[0]}, {said[1]}")
