"""What lies on the loops of a cloud: points in order, and where every point of the cloud stands along each loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import chi2

from src.errors import StrataError
from src.topology.homology.cocycles import Cocycles, NoCocycleError
from src.topology.homology.cycles import cycle_of
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence
from src.topology.loops.circular import MIDDLE, CircularCoordinate, circular_coordinate
from src.topology.loops.circular_statistics import (
    LabelTest,
    OrderTest,
    cyclic_correlation,
    explained_by_label,
    order_test,
)


@dataclass(frozen=True, eq=False)
class Loop:
    """A bar of H1 in the terms of its cloud.

    Attributes:
        bar: place among the bars of dimension 1.
        birth, death: of the bar, in the cloud's unit of distance; p: of the bar, as it was given.
        walks: the cycle as closed walks through points, longest first; one in most cases.
        coordinate: of all points of the cloud along the loop.
    """

    bar: int
    birth: float
    death: float
    p: float
    walks: tuple[tuple[int, ...], ...]
    coordinate: CircularCoordinate

    @property
    def ratio(self) -> float:
        """Death / birth: the strength of the loop, whatever the unit."""
        return self.death / self.birth if self.birth > 0 else float("inf")

    @property
    def points(self) -> tuple[int, ...]:
        """The points of the cycle, walk after walk."""
        return tuple(point for walk in self.walks for point in walk)

    def as_json(self, points: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Plain values for loops.json. points: what is known of each point of the cloud, as its token and label."""
        turns = [None if np.isnan(each) else round(float(each), 6) for each in self.coordinate.turns]
        what = [{}] * len(turns) if points is None else points
        return {
            "bar": self.bar,
            "birth": self.birth,
            "death": self.death,
            "p": _or_none(self.p),
            "walks": [[{"point": point, **what[point]} for point in walk] for walk in self.walks],
            "coordinate": {
                "turns": turns,
                "scale": self.coordinate.scale,
                "largest_step": _or_none(self.coordinate.largest_step),
                "uncovered": self.coordinate.n_uncovered,
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of as_json (what was known of the points is left out)."""
        coordinate = values["coordinate"]
        turns = np.array([_or_nan(each) for each in coordinate["turns"]])
        return cls(
            values["bar"],
            values["birth"],
            values["death"],
            _or_nan(values["p"]),
            tuple(tuple(each["point"] for each in walk) for walk in values["walks"]),
            CircularCoordinate(turns, coordinate["scale"], _or_nan(coordinate["largest_step"])),
        )


@dataclass(frozen=True)
class CycleTest:
    """Do classes that go round in a cycle (weekdays, months) lie on a loop in their order?

    Attributes:
        correlation: of the coordinate with the classes' places in their cycle.
        explained: share of its variance that lies between classes; None where each class is one point.
        order: of the classes' mean directions.
        p_loop: of the loop, whatever lies on it. p: of loop and order together (Fisher's method).
    """

    correlation: LabelTest
    explained: LabelTest | None
    order: OrderTest
    p_loop: float
    p: float


def loops_of(
    distances: Distances,
    found: Persistence,
    p: Float[np.ndarray, "bar"],
    level: float = 0.05,
    at: float = MIDDLE,
    at_most: int | None = None,
) -> list[Loop]:
    """The loops whose p (or q) is `level` at most, longest bar first; none if there are none.

    Args:
        distances: of the cloud.
        found: its diagrams, with generators (backend auto or reduced).
        p: of each bar of dimension 1, NaN where it was not tested (as by `significance.significant_loops`).
        level: 1 takes all bars that have a p.
        at: where in the life of a bar its coordinate is taken: see `circular_coordinate`.
        at_most: so many of them, longest first.

    Raises:
        StrataError: if there is not one p for each bar, or `found` tells no cycles.
    """
    bars = found.bars[1]
    if len(p) != len(bars):
        raise StrataError(f"{len(p)} p-values were given for {len(bars)} loops: give one for each")
    chosen = np.flatnonzero(np.asarray(p) <= level)[:at_most].tolist()
    if not chosen:
        return []
    cocycles = Cocycles.of(distances)
    loops = []
    for bar in chosen:
        birth, death = float(bars.birth[bar]), float(bars.death[bar])
        walks = tuple(tuple(walk.tolist()) for walk in cycle_of(found, bar, distances).loops)
        try:
            coordinate = circular_coordinate(cocycles, birth, death, at, walks=walks)
        except NoCocycleError:
            coordinate = CircularCoordinate(np.full(distances.n_points, np.nan), birth, float("nan"))
        loops.append(Loop(bar, birth, death, float(p[bar]), walks, coordinate))
    return loops


def cycle_test(
    loop: Loop, labels: Int[np.ndarray, "point"], n_classes: int, draws: int = 999, seed: int = 0
) -> CycleTest | None:
    """Compare a loop with labels that go round in a cycle: 0 .. n_classes - 1, in their order.

    If the classes' places in the cloud are exchangeable, their order around the circle is independent of how strong the
    loop is, so that Fisher's method may combine the two p. Choose the loop without a look at the labels: the longest.
    None if its coordinate does not reach every class: such a loop is no circle of them.

    Raises:
        StrataError: if there are fewer than 4 classes, or labels do not fit.
    """
    turns = loop.coordinate.turns
    if len(np.unique(np.asarray(labels)[np.isfinite(turns)])) < n_classes:
        return None
    order = order_test(turns, labels, n_classes)
    together = chi2.sf(-2 * np.log(loop.p * order.p), df=4)
    return CycleTest(
        cyclic_correlation(turns, np.asarray(labels) / n_classes, draws, seed),
        explained_by_label(turns, labels, draws, seed) if len(labels) > n_classes else None,
        order,
        loop.p,
        float(together),
    )


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
