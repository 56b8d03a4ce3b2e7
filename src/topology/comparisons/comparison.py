"""All comparisons of two clouds: of their diagrams, of their union, and of their rows where these are pairs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from src.topology.comparisons.diagram_distances import DiagramDistance, diagram_distance
from src.topology.comparisons.overlap import Verdict, overlap_verdict
from src.topology.comparisons.paired import PairedComparison, basis_agreement, compare_paired
from src.topology.comparisons.preserved import PreservedBars, preserved_bars
from src.topology.comparisons.split_halves import SplitHalves, split_halves
from src.topology.comparisons.two_sample import TwoSample, centre_distance, standardised, two_sample_tests
from src.topology.comparisons.union_picture import UnionPicture, union_picture
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence, persistence

# below it, one cloud's axes are not the other's: of unrelated bases about 0, 0.6 of actopo's base and instruct clouds
SAME_BASIS = 0.25


@dataclass(frozen=True, eq=False)
class ComparedCloud:
    """A cloud as it was measured. diagram: of the protocol (perhaps after PCA), in units where the scale is `scale`."""

    points: Float[np.ndarray, "point d"]
    diagram: Persistence
    scale: float
    units: Int[np.ndarray, " point"]


@dataclass(frozen=True)
class Draws:
    """How often chance is asked: relabellings of unions, shuffles of pairs, halves for intervals and for loops."""

    union: int = 999
    paired: int = 199
    halves: int = 100
    loops: int = 20
    seed: int = 0


@dataclass(frozen=True)
class UnionComparison:
    """Two clouds in the same space.

    Attributes:
        centre: distance of the centres, raw and in units of the mean of the clouds' median distances.
        tests: do they come from one distribution, as they are?
        shape_tests: and after each was centred and scaled to a root mean square radius of 1?
        verdict, shape_verdict: in words, from these tests alone.
        preserved: by dimension, of the diagrams without PCA.
        picture: both clouds in a plane.
    """

    centre: tuple[float, float]
    tests: TwoSample
    shape_tests: TwoSample
    verdict: Verdict
    shape_verdict: Verdict
    preserved: tuple[PreservedBars, ...]
    picture: UnionPicture


@dataclass(frozen=True)
class CloudComparison:
    """What is told of two clouds.

    Attributes:
        raw, scale_free: distances of the diagrams by dimension; scale_free: in units of each cloud's scale.
        loops: of halves, against halves of one cloud.
        union: None where the clouds are not in one space; `no_union` says why.
        paired: None where rows are not pairs.
        basis: agreement of the axes of paired clouds of one width.
    """

    raw: tuple[DiagramDistance, ...]
    scale_free: tuple[DiagramDistance, ...] | None
    loops: SplitHalves
    union: UnionComparison | None
    no_union: str
    paired: PairedComparison | None
    basis: float | None


def compare_clouds(
    first: ComparedCloud, second: ComparedCloud, metric: str, draws: Draws, paired: bool, same_basis: bool | None = None
) -> CloudComparison:
    """Compare two clouds.

    Args:
        first: one cloud.
        second: the other.
        metric: of the distances, euclidean or cosine.
        draws: of all that is random.
        paired: row i of both is of the same prompt or token; units are those of the first cloud.
        same_basis: whether the clouds' axes are the same; None = found out from paired rows, else believed if the
            clouds have as many.

    Raises:
        StrataError: points that have no such distances, or units that do not fit the design.
    """
    clouds = [Distances.from_points(each.points, metric) for each in (first, second)]  # type: ignore[arg-type]
    dimensions = range(min(len(first.diagram.bars), len(second.diagram.bars)))
    bars = [(first.diagram.bars[k], second.diagram.bars[k]) for k in dimensions]
    scales = first.scale, second.scale
    alike = min(first.points.shape[1], second.points.shape[1]) == max(first.points.shape[1], second.points.shape[1])
    basis = basis_agreement(first.points, second.points) if paired and alike else None
    no_union = _why_no_union(first, second, basis, same_basis)
    own_units = len(np.unique(first.units)) < len(first.units)
    return CloudComparison(
        raw=tuple(diagram_distance(*pair) for pair in bars),
        scale_free=tuple(diagram_distance(*pair, scales) for pair in bars) if min(scales) > 0 else None,
        loops=split_halves(clouds[0], clouds[1], draws=draws.loops, seed=draws.seed, units=(first.units, second.units)),
        union=None if no_union else _compare_in_union(first, second, clouds, metric, draws, paired),
        no_union=no_union,
        paired=compare_paired(
            first.points,
            second.points,
            (clouds[0], clouds[1]),
            draws.paired,
            draws.halves,
            draws.seed,
            first.units if own_units else None,
        )
        if paired
        else None,
        basis=basis,
    )


def _why_no_union(first: ComparedCloud, second: ComparedCloud, basis: float | None, same: bool | None) -> str:
    widths = first.points.shape[1], second.points.shape[1]
    if widths[0] != widths[1]:
        return f"the clouds have {widths[0]} and {widths[1]} dimensions: they have no union"
    if same is False:
        return "the clouds' axes are said not to be the same (same_basis=false): they have no union"
    if same is None and basis is not None and not basis >= SAME_BASIS:
        return (
            f"the clouds' axes do not agree ({basis:.2f} of the best rotation's trace; {SAME_BASIS:g} is needed): "
            "where they lie to each other means nothing (same_basis=true compares them all the same)"
        )
    return ""


def _compare_in_union(
    first: ComparedCloud, second: ComparedCloud, clouds: list[Distances], metric: str, draws: Draws, paired: bool
) -> UnionComparison:
    n_first = len(first.points)
    units = np.concatenate([first.units, first.units if paired else second.units + first.units.max() + 1])
    together = np.concatenate([first.points, second.points])
    whole = Distances.from_points(together, metric)  # type: ignore[arg-type]
    shapes = np.concatenate([standardised(first.points), standardised(second.points)])
    tests, shape_tests = (
        two_sample_tests(union, n_first, draws.union, draws.seed, units, paired)
        for union in (whole, Distances.from_points(shapes))
    )
    top = min(len(first.diagram.bars), len(second.diagram.bars), 2) - 1
    found = [persistence(each, top) for each in (*clouds, whole)]
    return UnionComparison(
        centre_distance(first.points, second.points, (clouds[0].median + clouds[1].median) / 2),
        tests,
        shape_tests,
        overlap_verdict(tests),
        overlap_verdict(shape_tests),
        tuple(preserved_bars(*(each.bars[k] for each in found), n_first=n_first) for k in range(top + 1)),
        union_picture(together, n_first, whole, found[-1]),
    )
