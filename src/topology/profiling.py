"""Everything that is measured on one cloud, under one protocol: statistics, bands, nulls, significance, dimension."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from src.topology.homology.distances import Distances, checked_points
from src.topology.homology.persistence import Backend, Persistence, persistence
from src.topology.inference.nulls import (
    NullModel,
    NullSummary,
    gaussian,
    grouped_gaussian,
    null_distribution,
    shuffled_scores,
)
from src.topology.inference.resampling import subsample_bands
from src.topology.inference.sensitivity import OUTLIER_SHARE, outlier_sensitivity
from src.topology.inference.significance import benjamini_hochberg, null_p_values, universal_p_values
from src.topology.loops.loops import Loop, cycle_test, loops_of
from src.topology.measures.anisotropy import anisotropy
from src.topology.measures.intrinsic import intrinsic_dimensions
from src.topology.measures.measures import statistics
from src.topology.measures.summaries import betti_curve, survival_curve
from src.topology.profile import (
    BarTests,
    CloudProfile,
    Curves,
    CycleSummary,
    Interval,
    Measure,
    NullMeasure,
    OutlierSensitivity,
    cloud_sha256,
)
from src.topology.protocols import frozen_v5, todacomm
from src.topology.protocols.preparation import Prepared, prepare
from src.topology.protocols.protocol import Protocol
from src.topology.protocols.sampling import principal_scores, sample

# the null model that decides which loops are significant
DECISIVE = "gaussian"
# a null's `top`
_TOP = 0.95
_FEWEST_FOR_OUTLIERS = 5
# Circular coordinates take time that grows as points^3 (half a minute at 4,000): in larger clouds than this only
# significant loops have them.
_MOST_FOR_LONGEST = 2000


@dataclass(frozen=True)
class ProfileSettings:
    """How much is computed, and by what; a protocol says what.

    Attributes:
        n_subsample: points of each subsample behind the bands, the same for all clouds that are to be compared.
        nulls: names of null models: gaussian, shuffled_scores, grouped_gaussian (for clouds with groups).
        level, most_loops: loops with a p of this level at most are told with their points, so many at most.
        longest_loops: so many are told whatever their p, to be followed through layers, and compared with labels (in
            clouds of up to 2,000 points).
        cyclic: groups are numbers 0 .. k - 1 that go round in a cycle.
        workers: threads; results do not depend on them.
    """

    backend: Backend = "auto"
    check: bool = False
    memory_limit: int | None = None
    n_subsample: int | None = None
    subsample_draws: int = 50
    nulls: tuple[str, ...] = ("gaussian",)
    null_draws: int = 99
    level: float = 0.05
    most_loops: int = 10
    longest_loops: int = 3
    cyclic: bool = False
    workers: int = 1


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

    `protocol` says what is measured, `settings` how much of it. `seed` is of sampling, subsamples and null models; the
    same for all clouds of a run, so that bands of layers are of the same points. `groups`: of each point, for
    `grouped_gaussian` (labels, say). `sequences`: the text that each point is of; subsamples are made of whole ones.
    `random`: the same points in models with random weights.

    Raises:
        StrataError: values that are not finite, fewer than 3 points, too little memory, backends that differ.
    """
    checked_points(points)
    cloud = prepare(points, protocol, seed)
    found = persistence(
        cloud.distances, protocol.max_dimension, settings.backend, settings.check, settings.memory_limit
    )

    def measured_by(distances: Distances, bars: Persistence) -> dict[str, float]:
        return measure_cloud(distances, bars, protocol)

    measured = measured_by(cloud.distances, found)
    nulls = _nulls(points, cloud, protocol, settings, seed, measured, groups)
    if len(random):
        nulls["random_init"] = _random(random, protocol, seed, measured)
    bands = {}
    if settings.n_subsample is not None and settings.n_subsample <= cloud.distances.n_points:
        bands = subsample_bands(
            cloud.distances,
            measured_by,
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
    tests = bar_tests(found, nulls)
    loops = _loops(cloud.distances, found, tests, settings)
    labels = None if groups is None or not settings.cyclic else groups[cloud.rows]
    return CloudProfile(
        name=name,
        hook=hook,
        layer=layer,
        n_available=len(points),
        n_points=cloud.distances.n_points,
        n_dimensions=cloud.points.shape[1],
        n_ambient=points.shape[1],
        n_duplicates=int(measured["n_duplicates"]),
        scale=cloud.scale,
        median_distance=cloud.distances.median,
        diameter=cloud.distances.diameter,
        n_subsample=settings.n_subsample if bands else None,
        persistence=found,
        tests=tests,
        statistics=measures,
        curves=curves_of(found, protocol),
        intrinsic={
            method: Interval(estimate.value, estimate.low, estimate.high)
            for method, estimate in intrinsic_dimensions(cloud.distances, seed).estimates.items()
        },
        outliers=_outliers(cloud.distances, found, measured_by, protocol),
        loops=loops,
        cycles=() if labels is None else tuple(_cycle(loop, labels, seed) for loop in loops),
        control_h0=tuple(nulls["random_init"]["h0_normalised"].values.tolist()) if len(random) else (),
        rows=cloud.rows,
        published=published_numbers(cloud, found, protocol),
        input_sha256=cloud_sha256(points),
    )


def measure_cloud(distances: Distances, found: Persistence, protocol: Protocol) -> dict[str, float]:
    """All statistics that bands and nulls are made of."""
    scale = protocol.scale_of(distances)
    return statistics(distances, found, scale, protocol.betti_fraction, protocol.survival_fraction)


def bar_tests(found: Persistence, nulls: Mapping[str, Mapping[str, NullSummary]]) -> dict[int, BarTests]:
    """P of every bar of dimension 1 and above: by the universal law, and, of loops, against the Gaussian null."""
    tests = {}
    for bars in found.bars[1:]:
        p = universal_p_values(bars)
        p_null = np.full(len(bars), np.nan)
        if bars.dimension == 1 and DECISIVE in nulls:
            p_null = null_p_values(bars, nulls[DECISIVE]["h1_max_ratio"].values)
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


def published_numbers(cloud: Prepared, found: Persistence, protocol: Protocol) -> dict[str, Any]:
    """What the package prints whose protocol this is; nothing under one of our own."""
    if protocol.arithmetic == "actopo":
        known = frozen_v5.Cloud(cloud.points, cloud.distances, cloud.scale, protocol.max_dimension, found)
        return asdict(frozen_v5.measure(known, protocol))
    return dict(todacomm.summarise(found)) if protocol.arithmetic == "todacomm" else {}


def _nulls(
    points: Float[np.ndarray, "available d"],
    cloud: Prepared,
    protocol: Protocol,
    settings: ProfileSettings,
    seed: int,
    measured: Mapping[str, float],
    groups: Shaped[np.ndarray, "available"] | None,
) -> dict[str, dict[str, NullSummary]]:
    """Null clouds are of all points, after PCA, and are sampled down as the cloud was."""
    models: dict[str, NullModel] = {"gaussian": gaussian, "shuffled_scores": shuffled_scores}
    if groups is not None:
        models["grouped_gaussian"] = grouped_gaussian(groups)
    whole, sampled = cloud.points, None
    if len(cloud.rows) < len(points):
        whole = points if protocol.pca_components is None else principal_scores(points, protocol.pca_components)
        sampled = _sampling(protocol)
    return {
        name: null_distribution(
            whole,
            lambda distances, bars: measure_cloud(distances, bars, protocol),
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


def _sampling(
    protocol: Protocol,
) -> Callable[[Float[np.ndarray, "available k"], np.random.Generator], Float[np.ndarray, "point k"]]:
    def sampled(points: Float[np.ndarray, "available k"], random: np.random.Generator) -> Float[np.ndarray, "point k"]:
        assert protocol.max_points is not None
        return points[sample(points, protocol.max_points, protocol.sampling, int(random.integers(2**31)))]

    return sampled


def _random(
    clouds: Sequence[Float[np.ndarray, "available d"]], protocol: Protocol, seed: int, measured: Mapping[str, float]
) -> dict[str, NullSummary]:
    found = []
    for points in clouds:
        distances = prepare(points, protocol, seed).distances
        found.append(measure_cloud(distances, persistence(distances, protocol.max_dimension), protocol))
    return {name: NullSummary.of(value, np.array([each[name] for each in found])) for name, value in measured.items()}


def _null_measure(summary: NullSummary) -> NullMeasure:
    defined = summary.values[~np.isnan(summary.values)]
    top = float(np.quantile(defined, _TOP)) if len(defined) else float("nan")
    return NullMeasure(summary.mean, summary.low, summary.high, summary.p_greater, top)


def _outliers(
    distances: Distances,
    found: Persistence,
    measured_by: Callable[[Distances, Persistence], dict[str, float]],
    protocol: Protocol,
) -> OutlierSensitivity | None:
    if distances.n_points < _FEWEST_FOR_OUTLIERS:
        return None
    sensitivity = outlier_sensitivity(distances, measured_by, OUTLIER_SHARE, found, protocol.max_dimension)
    return OutlierSensitivity(
        len(sensitivity.left_out),
        {name: (each.with_all, each.without) for name, each in sensitivity.statistics.items()},
    )


def _loops(
    distances: Distances, found: Persistence, tests: Mapping[int, BarTests], settings: ProfileSettings
) -> tuple[Loop, ...]:
    """The longest loops and the significant ones, longest first; none where the backend tells no cycles."""
    if found.generators is None or 1 not in tests:
        return ()
    p = tests[1].decisive
    told = np.zeros(len(p), bool)
    if distances.n_points <= _MOST_FOR_LONGEST:
        told[: settings.longest_loops] = True
    told[tests[1].significant(settings.level)[: settings.most_loops]] = True
    return tuple(loops_of(distances, found, np.where(told, p, np.nan), level=1.0))


def _cycle(loop: Loop, labels: Int[np.ndarray, "point"], seed: int) -> CycleSummary | None:
    """None where a label has no place on the loop."""
    test = cycle_test(loop, labels, int(labels.max()) + 1, seed=seed)
    if test is None:
        return None
    order, correlation = test.order, test.correlation
    return CycleSummary(order.in_order, order.order, test.p, order.p, correlation.value, correlation.p)
