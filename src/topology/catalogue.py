"""The names of all statistics of one cloud, and what they mean: labels of stages, figures and reports come from here."""

from dataclasses import dataclass
from typing import Literal

# distance: of the cloud's metric; share: between 0 and 1; none: a number without unit
Unit = Literal["count", "distance", "share", "none"]
# homology dimensions that have summaries
DIMENSIONS = range(4)


@dataclass(frozen=True)
class Statistic:
    """One statistic.

    Attributes:
        label: a short name for axes and tables.
        scale_free: whether it stays the same when all distances are multiplied by a number.
    """

    name: str
    label: str
    meaning: str
    unit: Unit
    scale_free: bool


def _bars(k: int) -> list[Statistic]:
    of, what = f"h{k}", f"finite bars of dimension {k}"
    return [
        Statistic(f"{of}_count", f"H{k} bars", f"number of {what}", "count", True),
        Statistic(f"{of}_infinite", f"H{k} infinite bars", f"bars of dimension {k} that never die", "count", True),
        Statistic(f"{of}_total", f"H{k} total persistence", f"summed lengths of the {what}", "distance", False),
        Statistic(f"{of}_max", f"H{k} longest bar", f"length of the longest of the {what}", "distance", False),
        Statistic(f"{of}_mean", f"H{k} mean bar", f"mean length of the {what}", "distance", False),
        Statistic(
            f"{of}_total_scaled", f"H{k} total / scale", f"summed lengths of the {what}, in scales", "none", True
        ),
        Statistic(f"{of}_max_scaled", f"H{k} longest / scale", f"the longest of the {what}, in scales", "none", True),
        Statistic(f"{of}_mean_scaled", f"H{k} mean / scale", f"mean length of the {what}, in scales", "none", True),
        Statistic(f"{of}_entropy", f"H{k} entropy", f"persistent entropy of the {what}, natural log", "none", True),
        Statistic(
            f"{of}_entropy_normalised",
            f"H{k} entropy / ln count",
            f"persistent entropy of the {what}, as a share of its largest value",
            "share",
            True,
        ),
    ]


_ALL = [
    Statistic("n_points", "points", "number of points", "count", True),
    Statistic("n_duplicates", "copies", "points at distance 0 from an earlier point", "count", True),
    Statistic("scale", "scale", "the distance that thresholds are shares of", "distance", False),
    Statistic("diameter", "diameter", "largest distance of two points", "distance", False),
    Statistic("median_distance", "median distance", "median distance of two points", "distance", False),
    Statistic(
        "diameter_over_median",
        "diameter / median",
        "largest over median distance: outliers make it large",
        "none",
        True,
    ),
    Statistic(
        "beta_0",
        "β0",
        "components at the Betti threshold: bars of H0 longer than it, with the infinite one",
        "count",
        True,
    ),
    Statistic("beta_1", "β1", "loops: bars of H1 longer than the Betti threshold", "count", True),
    Statistic(
        "survival_rate", "survival rate", "share of the bars of H1 longer than the survival threshold", "share", True
    ),
    Statistic(
        "h1_max_ratio", "H1 largest death / birth", "largest ratio of death to birth of a bar of H1", "none", True
    ),
    *(row for k in DIMENSIONS for row in _bars(k)),
    Statistic(
        "h0_normalised",
        "H0 mean edge / median distance",
        "mean edge of the spanning tree over the median distance",
        "none",
        True,
    ),
    Statistic("mst_mean", "mean edge", "mean edge of the minimum spanning tree, copies included", "distance", False),
    Statistic(
        "mst_sd", "sd of edges", "standard deviation of the edges of the minimum spanning tree", "distance", False
    ),
    Statistic("mst_cv", "sd / mean edge", "standard deviation over mean of the tree's edges", "none", True),
    Statistic("mst_skew", "skewness of edges", "skewness of the tree's edges", "none", True),
    Statistic(
        "mst_gini", "Gini of edges", "Gini coefficient of the tree's edges: 0 where all are equal", "share", True
    ),
    Statistic("mst_leaf_share", "leaves", "share of the distinct points with one edge in the tree", "share", True),
    Statistic("mst_max_degree", "largest degree", "edges at the tree's largest hub", "count", True),
]
STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in _ALL}
