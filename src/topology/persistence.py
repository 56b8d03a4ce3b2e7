"""Persistence diagrams of Vietoris-Rips filtrations."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from src.topology.distances import Distances


@dataclass(frozen=True)
class Bars:
    """The bars of one dimension, longest first; bars without length are not kept.

    Attributes:
        birth, death: scales; death is infinite for the component that never dies.
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
class Persistence:
    """The diagrams of one cloud: `bars[k]` are those of dimension k."""

    n_points: int
    bars: tuple[Bars, ...]
    backend: str


def persistence(distances: Distances, max_dimension: int = 1, backend: str = "ripser") -> Persistence:
    """The diagrams of the Vietoris-Rips filtration up to `max_dimension`, over Z/2."""
    from ripser import ripser

    diagrams = ripser(distances.matrix, maxdim=max_dimension, distance_matrix=True)["dgms"]
    return Persistence(
        distances.n_points,
        tuple(
            Bars(k, *diagram[np.argsort(diagram[:, 0] - diagram[:, 1], kind="stable")].T.astype(np.float64))
            for k, diagram in enumerate(diagrams)
        ),
        backend,
    )
