"""What measure_topology.py shows: a table over clouds, tables of all statistics, numbers for trackers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src.errors import StrataError
from src.report.tables import Cell, Table, finite_or_none, interval_cell
from src.topology.measures.catalogue import STATISTICS
from src.topology.measures.expansion import expansion
from src.topology.profile import CloudProfile, Interval, Measure

LOOP_LENGTH = "h1_max_scaled"
# panels of the profile over layers
PANELS = ("beta_1", LOOP_LENGTH, "h0_normalised", "diameter_over_median", "mst_gini", "hubness")
# the columns of the long table
LISTED = (
    *("beta_0", "beta_1", "survival_rate", "h1_count", "h1_total_scaled", LOOP_LENGTH, "h1_entropy_normalised"),
    *("h0_normalised", "mst_gini", "diameter_over_median", "hubness", "mean_cosine", "effective_rank"),
)
_NULLS = {
    "gaussian": "Gaussian of the same covariance",
    "shuffled_scores": "shuffled principal scores",
    "grouped_gaussian": "labels' centres as a Gaussian has them",
    "random_init": "models with random weights",
}
_SHORT = {"gaussian": "Gaussian", "shuffled_scores": "shuffled", "grouped_gaussian": "grouped", "random_init": "random"}


def null_title(name: str) -> str:
    """A null model, for readers."""
    return _NULLS.get(name, name)


def cloud_table(profiles: Sequence[CloudProfile], level: float) -> Table:
    """One row per cloud: points, scale, loops at the threshold with band and nulls, significant loops, dimension."""
    nulls = list(dict.fromkeys(null for profile in profiles for null in profile.statistics["beta_1"].nulls))
    rows: list[list[Cell]] = []
    for profile in profiles:
        beta = profile.statistics["beta_1"]
        row: list[Cell] = [profile.name, profile.n_points, profile.n_duplicates, profile.scale, banded(beta, "beta_1")]
        row += [_null_cell(beta, null) for null in nulls]
        row += [*_significant(profile, level), *_dimension(profile)]
        rows.append(row)
    names = [_SHORT.get(null, null) for null in nulls]
    columns = ["cloud", "points", "copies", "scale", "β1", *(f"β1 {name}" for name in names), "loops"]
    columns += ["smallest p", "dimension"]
    n_subsample = profiles[0].n_subsample
    band = "" if n_subsample is None else f" Brackets of β1: 95 % of subsamples of {n_subsample} points."
    null_note = ""
    if nulls:
        null_note = "; ".join(f"{_SHORT.get(null, null)}: {null_title(null)}" for null in nulls)
        null_note = f" {null_note} (mean and middle 95 % of the draws)."

    impossible = any(_estimate(profile) > _spanned(profile) for profile in profiles)
    beyond = " (–: more than the points span)" if impossible else ""
    caption = (
        f"copies: points that equal an earlier one. β1: loops longer than the protocol's threshold.{band}{null_note} "
        "loops: bars that are more than chance by the Gaussian null and by the universal law of noise, at level "
        f"{level:g} for all bars of a cloud together; smallest p: of all loops, each with the "
        f"larger p of both tests. dimension: TwoNN{beyond}."
    )
    return Table("Topology of the clouds", columns, rows, caption)


def statistics_table(profiles: Sequence[CloudProfile]) -> Table:
    """One row per cloud, a column for each of the listed statistics, with bands."""
    names = [name for name in LISTED if any(name in profile.statistics for profile in profiles)]
    rows: list[list[Cell]] = [
        [
            profile.name,
            *(banded(profile.statistics[name], name) if name in profile.statistics else None for name in names),
        ]
        for profile in profiles
    ]
    titles = [STATISTICS[name].label if name in STATISTICS else name for name in names]
    known = [STATISTICS[name] for name in names if name in STATISTICS]
    meanings = "; ".join(f"{statistic.label}: {statistic.meaning}" for statistic in known)
    return Table("Statistics", ["cloud", *titles], rows, f"{meanings}. All are in measures.parquet.")


def dimension_table(profiles: Sequence[CloudProfile]) -> Table:
    """One row per cloud, a column for each estimate of the intrinsic dimension."""
    names = list(dict.fromkeys(name for profile in profiles for name in profile.intrinsic))
    rows: list[list[Cell]] = [
        [profile.name, profile.n_dimensions, *(_interval(profile.intrinsic.get(name)) for name in names)]
        for profile in profiles
    ]
    caption = "Estimates of the intrinsic dimension, with 95 % intervals. All of them are too low in high dimensions."
    return Table("Intrinsic dimension", ["cloud", "coordinates", *names], rows, caption)


def outlier_table(profiles: Sequence[CloudProfile]) -> Table | None:
    """What the farthest points do to the main statistics; None where nobody asked."""
    known = [profile for profile in profiles if profile.outliers is not None]
    if not known:
        return None
    names = [name for name in ("scale", *PANELS) if any(name in _outliers(profile) for profile in known)]
    rows: list[list[Cell]] = []
    for profile in known:
        found = _outliers(profile)
        cells: list[Cell] = [finite_or_none(value) for name in names for value in found.get(name, (math.nan, math.nan))]
        rows.append([profile.name, profile.outliers.n_left_out if profile.outliers else None, *cells])
    labels = [STATISTICS[name].label if name in STATISTICS else name for name in names]
    columns = ["cloud", "left out", *(f"{label}{rest}" for label in labels for rest in ("", ", without"))]
    caption = "left out: the points farthest from the others. All statistics are in clouds.json."
    return Table("What the farthest points do", columns, rows, caption)


def _outliers(profile: CloudProfile) -> dict[str, tuple[float, float]]:
    return {} if profile.outliers is None else profile.outliers.statistics


def published_table(profiles: Sequence[CloudProfile], package: str) -> Table | None:
    """The numbers that the package prints whose protocol this is; None under a protocol of our own."""
    names = list(dict.fromkeys(name for profile in profiles for name in profile.published))
    if not names:
        return None
    rows: list[list[Cell]] = [[profile.name, *(profile.published.get(name) for name in names)] for profile in profiles]
    return Table(f"As {package} prints it", ["cloud", *names], rows, f"Names, rounding and conventions of {package}.")


def expansion_table(profiles: Sequence[CloudProfile]) -> Table | None:
    """How far points move apart over the layers, beside models with random weights; None without these."""
    layered = [profile for profile in profiles if profile.layer is not None and profile.control_h0]
    if len(layered) < 2:
        return None
    own = [profile.statistics["h0_normalised"].value for profile in layered]
    controls = list(zip(*(profile.control_h0 for profile in layered), strict=True))
    try:
        found = expansion(own, controls)
    except StrataError as error:
        return Table("Expansion over layers", ["why there is none"], [[str(error)]])
    low, high = float(found.of_controls.min()), float(found.of_controls.max())
    row: list[Cell] = [found.ratio, layered[found.peak].name, low, high, found.over_controls, found.p]
    columns = ["ratio", "largest at", "random, lowest", "random, highest", "over random", "p"]
    caption = (
        f"Mean edge of the spanning tree over the median distance, the largest of all layers over {layered[0].name}; "
        f"beside {len(controls)} models with random weights on the same tokens."
    )
    return Table("Expansion over layers", columns, [row], caption)


def ablation_table(records: Sequence[Mapping[str, Any]]) -> Table | None:
    """The main statistics at each size and number of components; None if nothing was varied."""
    if not records:
        return None
    names = [name for name in PANELS if any(record["statistic"] == name for record in records)]
    cells: dict[tuple[str, str, int | None], dict[str, Cell]] = {}
    for record in records:
        key = (record["cloud"], record["varied"], record["size"])
        band = Measure(record["value"], _nan(record.get("low")), _nan(record.get("high")))
        cells.setdefault(key, {})[record["statistic"]] = banded(band)
    rows: list[list[Cell]] = [
        [cloud, "points" if varied == "n_points" else "components", "all" if size is None else size]
        + [of.get(name) for name in names]
        for (cloud, varied, size), of in cells.items()
    ]
    caption = "points: subsamples, mean and middle 95 %; components: of PCA, all = the cloud's own coordinates."
    labels = [STATISTICS[name].label for name in names]
    return Table("What the number of points and PCA do", ["cloud", "varied", "to", *labels], rows, caption)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def topology_metrics(profiles: Sequence[CloudProfile], level: float) -> dict[str, float]:
    """Numbers for trackers: every statistic of every cloud, and its significant loops."""
    found: dict[str, float] = {}
    for profile in profiles:
        found |= {f"{profile.name}/{name}": measure.value for name, measure in profile.statistics.items()}
        found |= {f"{profile.name}/dimension_{name}": each.value for name, each in profile.intrinsic.items()}
        if 1 in profile.tests:
            found[f"{profile.name}/significant_loops"] = float(len(profile.tests[1].significant(level)))
    return found


def banded(measure: Measure, statistic: str = "") -> Cell:
    """A statistic with its band of subsamples, as a cell; counts are whole numbers."""
    known = STATISTICS.get(statistic)
    is_count = known is not None and known.unit == "count" and math.isfinite(measure.value)
    return interval_cell(int(measure.value) if is_count else measure.value, measure.low, measure.high)


def _null_cell(measure: Measure, null: str) -> Cell:
    found = measure.nulls.get(null)
    return None if found is None else interval_cell(found.mean, found.low, found.high)


def _significant(profile: CloudProfile, level: float) -> list[Cell]:
    tests = profile.tests.get(1)
    if tests is None:
        return [None, None]
    known = tests.decisive[np.isfinite(tests.decisive)]
    return [len(tests.significant(level)), float(known.min()) if len(known) else None]


def _dimension(profile: CloudProfile) -> list[Cell]:
    return [None if _estimate(profile) > _spanned(profile) else _interval(profile.intrinsic.get("two_nn"))]


def _estimate(profile: CloudProfile) -> float:
    found = profile.intrinsic.get("two_nn")
    return math.nan if found is None else found.value


def _spanned(profile: CloudProfile) -> int:
    """Dimensions that the points can have at most, whatever an estimate says of few of them."""
    return min(profile.n_points - 1, profile.n_dimensions)


def _interval(found: Interval | None) -> Cell:
    return None if found is None else interval_cell(found.value, found.low, found.high)
