"""All that is measured on one cloud: what tables, figures and comparisons are made from."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from src.topology.homology.persistence import Persistence
from src.topology.inference.significance import decisive_p_values
from src.topology.loops.loops import Loop


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class NullMeasure:
    """A statistic under a null model: mean and central 95 % of its draws.

    p: share of draws (the cloud itself counted among them) whose statistic is as large as the cloud's, or larger:
    (1 + count) / (1 + draws). top: what 5 % of the draws exceed.
    """

    mean: float
    low: float
    high: float
    p: float
    top: float = float("nan")


@dataclass(frozen=True)
class Measure:
    """A statistic of a cloud.

    low, high: central 95 % of its values in subsamples without replacement, all of the same number of points, for
    every cloud of a run (NaN: no subsamples were drawn). The value is that of all points, and may lie outside: many
    statistics grow with the number of points. Clouds are compared by their bands. nulls: by name of the null model.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    nulls: dict[str, NullMeasure] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class BarTests:
    """Is a bar longer than noise would have it? One entry for each bar, in the order of the diagram.

    p: of the universal law of noise bars (death / birth), q: p after Benjamini and Hochberg's correction over the bars
    of the cloud. p_null: against the longest (by death / birth) of each draw of the Gaussian null, which corrects for
    the number of bars. NaN: not tested.
    """

    p: Float[np.ndarray, "bar"]
    q: Float[np.ndarray, "bar"]
    p_null: Float[np.ndarray, "bar"]

    @property
    def decisive(self) -> Float[np.ndarray, "bar"]:
        """The p that decides, of both (see significance.py)."""
        return decisive_p_values(self.p_null, self.q)

    def significant(self, level: float) -> Int[np.ndarray, "found"]:
        """Indices of the bars that are more than chance at a level."""
        return np.flatnonzero(self.decisive <= level)


@dataclass(frozen=True, eq=False)
class Curves:
    """Numbers of bars along a grid, by homology dimension.

    scale: from 0 to the largest finite death. betti: bars alive at each scale (birth <= scale < death). survival: bars
    whose lifetime exceeds each value of the grid.
    """

    scale: Float[np.ndarray, "grid"]
    betti: dict[int, Int[np.ndarray, "grid"]]
    survival: dict[int, Int[np.ndarray, "grid"]]


@dataclass(frozen=True)
class OutlierSensitivity:
    """What the cloud looks like without the points that lie farthest out: by statistic, all points and the others."""

    n_left_out: int
    statistics: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class CycleSummary:
    """Do labels that go round in a cycle stand around a loop in their order?

    in_order: all of them, one way or the other. order: the labels as they follow each other around the loop. p: of loop
    and order together; p_order: of the order alone (exact). correlation: circular, of a point's place with its label's;
    p_correlation: among permuted labels.
    """

    in_order: bool
    order: tuple[int, ...]
    p: float
    p_order: float
    correlation: float
    p_correlation: float


@dataclass(frozen=True, eq=False)
class CloudProfile:
    """What was found for one cloud under one protocol.

    name: "resid_post/05", or that of an array. hook, layer: None for clouds that come from files. n_available: points
    before sampling; n_points: those that everything here is about; n_dimensions: of the points that distances are
    between (after PCA); n_ambient: before. n_duplicates: points that equal an earlier one. scale: the distance that
    thresholds are fractions of (protocol.scale), median and diameter beside it. n_subsample: points of each subsample.
    tests: by homology dimension (1 and above). intrinsic: estimates of the dimension by method. loops: the longest ones
    and the significant ones, with the points on them, longest first. cycles: of each loop, what the order of the labels
    has to do with it, if they go round in a cycle (None: a label has no place on it). control_h0: `h0_normalised` of
    the same points in each model with random weights. rows: the points that were sampled, as rows of the cloud as it
    came; edges of bars and points of loops count within them. published: what the package whose protocol this is
    prints, under its names and with its rounding. input_sha256: of the cloud as it came.
    """

    name: str
    hook: str | None
    layer: int | None
    n_available: int
    n_points: int
    n_dimensions: int
    n_ambient: int
    n_duplicates: int
    scale: float
    median_distance: float
    diameter: float
    n_subsample: int | None
    persistence: Persistence
    tests: dict[int, BarTests]
    statistics: dict[str, Measure]
    curves: Curves
    intrinsic: dict[str, Interval]
    outliers: OutlierSensitivity | None
    loops: tuple[Loop, ...]
    cycles: tuple[CycleSummary | None, ...]
    control_h0: tuple[float, ...]
    rows: Int[np.ndarray, "point"]
    published: dict[str, Any]
    input_sha256: str


def cloud_sha256(points: Float[np.ndarray, "point d"]) -> str:
    """sha256 (hex) of a cloud: dtype, shape, and the values row by row."""
    digest = hashlib.sha256(f"{points.dtype.str} {points.shape}".encode())
    digest.update(np.ascontiguousarray(points).data)
    return digest.hexdigest()
