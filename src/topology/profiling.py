"""Everything that is measured on one cloud, under one protocol: statistics, bands, nulls, significance, dimension."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from src.topology import frozen_v5, todacomm
from src.topology.anisotropy import anisotropy
from src.topology.copies import distinct
from src.topology.dimension import Estimate, gride, levina_bickel, two_nn
from src.topology.distances import Distances, checked_points
from src.topology.homology_dimension import homology_dimension
from src.topology.measures import statistics
from src.topology.neighbours import Neighbours, neighbour_statistics
from src.topology.nulls import (
    NullModel,
    NullSummary,
    gaussian,
    grouped_gaussian,
    null_distribution,
    shuffled_scores,
)
from src.topology.persistence import Backend, Persistence, persistence
from src.topology.profile import (
    BarTests,
    CloudProfile,
    Curves,
    Interval,
    Measure,
    NullMeasure,
    OutlierSensitivity,
    cloud_sha256,
)
from src.topology.protocol import Protocol
from src.topology.resampling import subsample_bands
from src.topology.sensitivity import OUTLIER_SHARE, outlier_sensitivity
from src.topology.significance import benjamini_hochberg, null_p_values, universal_p_values
from src.topology.summaries import betti_curve, survival_curve

# neighbours of a point: of hubness and distances to neighbours, and of the likelihood of the dimension
NEIGHBOURS = 10
# GRIDE's neighbours: beyond the noise of the nearest ones
GRIDE = (8, 16)
# the dimension from spanning trees needs subsets of many sizes
FEWEST_FOR_GROWTH = 80
TOP = 0.95


@dataclass(frozen=True)
class ProfileSettings:
    """How much is computed, and by what; a protocol says what.

    Attributes:
        n_subsample: points of each subsample behind the bands, the same for all clouds that are to be compared.
        nulls: names of null models: gaussian, shuffled_scores, grouped_gaussian (for clouds with groups).
        workers: threads; results do not depend on them.
    """

    backend: Backend = "auto"
    check: bool = False
    memory_limit: int | None = None
    n_subsample: int | None = None
    subsample_draws: int = 50
    nulls: tuple[str, ...] = ("gaussian",)
    null_draws: int = 99
    workers: int = 1


@dataclass(frozen=True, eq=False)
class PreparedCloud:
    """A cloud as its protocol measures it: after PCA (`scores`), and sampled down (`rows` of it)."""

    scores: Float[np.ndarray, "available k"]
    rows: Int[np.ndarray, "point"]

    @property
    def points(self) -> Float[np.ndarray, "point k"]:
        """The points that distances are between."""
        return self.scores[self.rows]


def prepare_cloud(points: Float[np.ndarray, "available d"], protocol: Protocol, seed: int) -> PreparedCloud:
    """PCA and sampling.

    Raises:
        StrataError: if the points are not a matrix of 3 or more finite rows.
    """
    checked_points(points)
    scores = todacomm.principal_scores(points, protocol.pca_components)
    return PreparedCloud(scores, todacomm.sample(scores, protocol, seed)[0])


def profile_cloud(
    points: Float[np.ndarray, "available d"],
    protocol: Protocol,
    settings: ProfileSettings,
    seed: int,
    *,
    name: str = "cloud",
    hook: str | None = None,
    layer: int | None = None,
    groups: Shaped[np.ndarray, "available"] | None = None,
    sequences: Shaped[np.ndarray, "available"] | None = None,
    random: Sequence[Float[np.ndarray, "available d"]] = (),
) -> CloudProfile:
    """Measure a cloud.

    Args:
        points: the cloud as it came.
        protocol: what is measured. settings: how much of it.
        seed: of sampling, subsamples and null models; the same for all clouds of a run, so that bands of layers are
            of the same points.
        name, hook, layer: what the cloud is called, and where it was read.
        groups: of each point, for `grouped_gaussian` (labels, say).
        sequences: the text that each point is of: subsamples are made of whole ones.
        random: the same points in models with random weights.

    Raises:
        StrataError: values that are not finite, fewer than 3 points, too little memory, backends that differ.
    """
    cloud = prepare_cloud(points, protocol, seed)
    distances = Distances.from_points(cloud.points, protocol.metric)
    found = persistence(distances, protocol.max_dimension, settings.backend, settings.check, settings.memory_limit)
    measured = measure_cloud(distances, found, protocol)
    nulls = _nulls(cloud, protocol, settings, seed, measured, groups)
    if len(random):
        nulls["random_init"] = _random(random, protocol, seed, measured)
    bands = {}
    if settings.n_subsample is not None and settings.n_subsample <= distances.n_points:
        bands = subsample_bands(
            distances,
            lambda some, bars: measure_cloud(some, bars, protocol),
            settings.n_subsample,
            settings.subsample_draws,
            seed,
            None if sequences is None else sequences[cloud.rows],
            max_dimension=protocol.max_dimension,
            workers=settings.workers,
        )
    measures = {}
    for statistic, value in measured.items():
        band = bands.get(statistic)
        ends = (float("nan"), float("nan")) if band is None else (band.low, band.high)
        of_nulls = {null: _null_measure(summaries[statistic]) for null, summaries in nulls.items()}
        measures[statistic] = Measure(value, *ends, nulls=of_nulls)
    measures |= {statistic: Measure(value) for statistic, value in anisotropy(cloud.points).items()}
    return CloudProfile(
        name=name,
        hook=hook,
        layer=layer,
        n_available=len(points),
        n_points=distances.n_points,
        n_dimensions=cloud.points.shape[1],
        n_ambient=points.shape[1],
        n_duplicates=int(measured["n_duplicates"]),
        scale=measured["scale"],
        median_distance=distances.median,
        diameter=distances.diameter,
        n_subsample=settings.n_subsample if bands else None,
        persistence=found,
        tests=bar_tests(found, nulls),
        statistics=measures,
        curves=curves_of(found, protocol),
        intrinsic=intrinsic_dimensions(distances, seed),
        outliers=_outliers(distances, found, protocol),
        rows=cloud.rows,
        published=published_numbers(points, protocol, seed),
        input_sha256=cloud_sha256(points),
    )


def measure_cloud(distances: Distances, found: Persistence, protocol: Protocol) -> dict[str, float]:
    """All statistics that bands and nulls are made of."""
    scale = protocol.scale_of(distances)
    measured = statistics(distances, found, scale, protocol.betti_fraction, protocol.survival_fraction)
    neighbours = Neighbours.of(distances, min(NEIGHBOURS, distances.n_points - 1))
    return measured | neighbour_statistics(neighbours, scale)


def bar_tests(found: Persistence, nulls: Mapping[str, Mapping[str, NullSummary]]) -> dict[int, BarTests]:
    """P of every bar of dimension 1 and above: by the universal law, and, of loops, against the Gaussian null."""
    tests = {}
    for bars in found.bars[1:]:
        p = universal_p_values(bars)
        p_null = np.full(len(bars), np.nan)
        if bars.dimension == 1 and "gaussian" in nulls:
            p_null = null_p_values(bars, nulls["gaussian"]["h1_max_ratio"].values)
        tests[bars.dimension] = BarTests(p, benjamini_hochberg(p), p_null)
    return tests


def curves_of(found: Persistence, protocol: Protocol) -> Curves:
    """Betti and survival curves on a grid of the protocol's number of steps."""
    largest = max((float(bars.finite.max(initial=0.0)) for bars in found.bars), default=0.0)
    grid = np.linspace(0.0, largest, protocol.n_scale_steps)
    return Curves(
        grid,
        {bars.dimension: betti_curve(bars, grid) for bars in found.bars},
        {bars.dimension: survival_curve(bars, grid) for bars in found.bars},
    )


def intrinsic_dimensions(distances: Distances, seed: int) -> dict[str, Interval]:
    """The estimates that the number of distinct points allows, by name."""
    different = distinct(distances)
    n = different.n_points
    if n < 4:
        return {}
    neighbours = Neighbours.of(different, min(GRIDE[1], n - 1))
    found = {"TwoNN": two_nn(neighbours), "MLE": levina_bickel(neighbours, min(NEIGHBOURS, n - 1))}
    if n > GRIDE[1]:
        found["GRIDE"] = gride(neighbours, *GRIDE)
    if n >= FEWEST_FOR_GROWTH:
        found["PH"] = homology_dimension(different, seed).estimate
    return {name: _interval(estimate) for name, estimate in found.items()}


def published_numbers(points: Float[np.ndarray, "available d"], protocol: Protocol, seed: int) -> dict[str, object]:
    """What the package prints whose protocol this is; nothing under one of our own."""
    if protocol.arithmetic == "actopo":
        return asdict(frozen_v5.measure(points, protocol))
    return todacomm.summary(points, protocol, seed) if protocol.arithmetic == "todacomm" else {}


def _nulls(
    cloud: PreparedCloud,
    protocol: Protocol,
    settings: ProfileSettings,
    seed: int,
    measured: Mapping[str, float],
    groups: Shaped[np.ndarray, "available"] | None,
) -> dict[str, dict[str, NullSummary]]:
    models: dict[str, NullModel] = {"gaussian": gaussian, "shuffled_scores": shuffled_scores}
    if groups is not None:
        models["grouped_gaussian"] = grouped_gaussian(groups)

    def sampled(points: Float[np.ndarray, "available k"], random: np.random.Generator) -> Float[np.ndarray, "point k"]:
        return points[todacomm.sample(points, protocol, int(random.integers(2**31)))[0]]

    return {
        name: null_distribution(
            cloud.scores,
            lambda some, bars: measure_cloud(some, bars, protocol),
            models[name],
            settings.null_draws,
            seed,
            protocol.metric,
            measured,
            sampled,
            protocol.max_dimension,
            settings.workers,
        )
        for name in settings.nulls
    }


def _random(
    clouds: Sequence[Float[np.ndarray, "available d"]], protocol: Protocol, seed: int, measured: Mapping[str, float]
) -> dict[str, NullSummary]:
    found = []
    for points in clouds:
        distances = Distances.from_points(prepare_cloud(points, protocol, seed).points, protocol.metric)
        found.append(measure_cloud(distances, persistence(distances, protocol.max_dimension), protocol))
    return {name: NullSummary.of(value, np.array([each[name] for each in found])) for name, value in measured.items()}


def _null_measure(summary: NullSummary) -> NullMeasure:
    defined = summary.values[~np.isnan(summary.values)]
    top = float(np.quantile(defined, TOP)) if len(defined) else float("nan")
    return NullMeasure(summary.mean, summary.low, summary.high, summary.p_greater, top)


def _outliers(distances: Distances, found: Persistence, protocol: Protocol) -> OutlierSensitivity | None:
    if distances.n_points < 5:
        return None
    sensitivity = outlier_sensitivity(
        distances,
        lambda some, bars: measure_cloud(some, bars, protocol),
        OUTLIER_SHARE,
        found,
        protocol.max_dimension,
    )
    return OutlierSensitivity(
        len(sensitivity.left_out),
        {name: (each.with_all, each.without) for name, each in sensitivity.statistics.items()},
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(estimate.value, estimate.low, estimate.high)
