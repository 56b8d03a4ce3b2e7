"""Integer 1-cocycles dual to the loops of a Vietoris-Rips filtration.

A closed 1-cochain gives every directed edge a number so that the numbers around each triangle add up to 0. In the
reduced filtration (Koyama, Mémoli, Robins and Turner 2023, arXiv 2307.16333) an edge that enters when a common
neighbour of its ends (an apex) is there takes its value from the two edges to the apex; so a closed cochain is fixed by
its values on the edges without an apex: those of the spanning tree, which may be 0, and the generators, each of which
opens a loop. Where the common neighbours of an entering edge fall into several components, paths through different
components must agree: these relations, reduced in the order of the filtration, close the loops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.memory import require_memory

# A bar is recognised by its birth and death, up to this part of its death.
_ROUNDING = 1e-6


class NoCocycleError(StrataError):
    """No integer cocycle belongs to a bar: it is of another cloud, or its class has torsion."""


@dataclass(frozen=True)
class Cocycles:
    """The loops of a filtration, and the relations that close them.

    Attributes:
        rank: the place of each edge in the filtration (by length, then by index), the number of edges where there is
            none: edges beyond the enclosing radius do not enter.
        edges: the points of each edge, smaller first, in the order of the filtration; `length` is theirs.
        apex: a common neighbour at entry, or -1 (tree) or -2 (generator).
        generators: the edges that are generators.
        relations: row g is the relation that closes generator g, in coefficients of generators 0 .. g (that of g is 1),
            modulo the prime; death: the edge that brings it.
    """

    rank: Int[np.ndarray, "point point"]
    edges: Int[np.ndarray, "edge 2"]
    length: Float[np.ndarray, "edge"]
    apex: Int[np.ndarray, "edge"]
    generators: Int[np.ndarray, "generator"]
    relations: Int[np.ndarray, "generator generator"]
    death: Int[np.ndarray, "generator"]

    @classmethod
    def of(cls, distances: Distances) -> Self:
        """Reduce the relations of a cloud: time grows as points^3, memory as points^2.

        Distances are rounded to float32, as `persistence` rounds them: births and deaths are the same.

        Raises:
            StrataError: if the machine has too little memory free.
        """
        from src.topology.homology import cocycle_kernels as kernels  # imports numba

        n = distances.n_points
        require_memory(28 * n**2, n, "cocycles")
        upper, lower = np.tril_indices(n, -1)
        length = distances.matrix[upper, lower].astype(np.float32).astype(np.float64)
        entering = np.flatnonzero(length <= float(np.float32(distances.enclosing_radius)))
        entering = entering[np.argsort(length[entering], kind="stable")]
        edges = np.stack([lower[entering], upper[entering]], axis=1).astype(np.int32)
        rank = np.full((n, n), len(edges), dtype=np.int32)
        rank[edges[:, 0], edges[:, 1]] = rank[edges[:, 1], edges[:, 0]] = np.arange(len(edges))
        apex = kernels.apices(rank, edges)
        generators = np.flatnonzero(apex == kernels.GENERATOR)
        require_memory(8 * len(generators) ** 2, n, f"relations between {len(generators)} loops")
        relations, death = kernels.relations_of(rank, edges, apex, generators)
        return cls(rank, edges, length[entering], apex, generators, relations, death)

    def generator_of(self, birth: float, death: float, walks: Sequence[Sequence[int]] = ()) -> int:
        """The generator whose loop lives from `birth` to `death`.

        Where several do (congruent shapes): the first whose cocycle goes around the loop's cycle, the closed `walks`
        through points, an odd number of times; without walks the first.

        Raises:
            NoCocycleError: if none does: so it is for a bar of other distances, and for one that is a loop modulo 2
                alone, as the twisted one of a projective plane.
        """
        closed = np.flatnonzero(self.death >= 0)
        lives = np.stack([self.length[self.generators[closed]], self.length[self.death[closed]]], axis=1)
        miss = np.abs(lives - [birth, death]).max(axis=1, initial=0.0)
        if not len(closed) or miss.min() > _ROUNDING * max(death, 1e-300):
            raise NoCocycleError(
                f"no loop of this cloud lives from {birth:g} to {death:g}: the bar is of other distances, or twisted"
            )
        alike = closed[miss == miss.min()].tolist()
        if len(alike) == 1 or not walks:
            return alike[0]
        return next((each for each in alike if self._turns(each, birth, walks) % 2), alike[0])

    def _turns(self, generator: int, scale: float, walks: Sequence[Sequence[int]]) -> int:
        """How often the cocycle of a generator goes around closed walks."""
        values = self.dual(generator, scale)
        return sum(int(values[walk, np.roll(walk, -1)].sum()) for walk in map(np.asarray, walks))

    def dual(self, generator: int, scale: float) -> Int[np.ndarray, "point point"]:
        """The integer cocycle at `scale` with period 1 on one loop and 0 on the loop of every other bar.

        The loop of a bar is the one that its death edge closes. Entry (i, j) is the value of the edge from i to j,
        antisymmetric; 0 where there is no edge up to `scale`.

        Raises:
            NoCocycleError: if the class has no integer cocycle there (torsion).
        """
        from src.topology.homology import cocycle_kernels as kernels

        on_generators = np.zeros(len(self.generators), dtype=np.int64)
        last = int(np.searchsorted(self.length, scale, side="right"))
        for row in range(generator, int(np.searchsorted(self.generators, last))):
            others = np.flatnonzero(on_generators[generator:row]) + generator
            known = sum(int(self.relations[row, g]) * int(on_generators[g]) for g in others)
            on_generators[row] = (int(row == generator) - known) % kernels.PRIME
        on_generators[on_generators > kernels.PRIME // 2] -= kernels.PRIME
        values = np.zeros((len(self.rank), len(self.rank)), dtype=np.int64)
        if not kernels.extend(self.rank, self.edges, self.apex, self.generators, on_generators, last, values):
            raise NoCocycleError(f"the loop has no integer cocycle at the scale {scale:g}: choose another scale")
        return values
