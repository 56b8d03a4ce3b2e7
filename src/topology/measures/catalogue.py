"""The names of all statistics of one cloud: stages, figures and reports take labels and meanings from here."""

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
        Statistic(
            f"{of}_landscape_norm_scaled",
            f"H{k} landscape norm",
            f"L2 norm of the persistence landscapes of the {what}, lengths in scales",
            "none",
            True,
        ),
    ]


def _neighbour_distances() -> list[Statistic]:
    of = {"mean": "mean", "sd": "standard deviation", "q05": "5 % quantile", "median": "median", "q95": "95 % quantile"}
    what = "of the distances to the 10 nearest neighbours"
    raw = [Statistic(f"knn_{name}", f"kNN {name}", f"{text} {what}", "distance", False) for name, text in of.items()]
    scaled = [
        Statistic(f"knn_{name}_scaled", f"kNN {name} / scale", f"{text} {what}, in scales", "none", True)
        for name, text in of.items()
    ]
    return raw + scaled


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
    *_neighbour_distances(),
    Statistic(
        "hubness", "hubness", "skewness of how often distinct points are among the 10 nearest of others", "none", True
    ),
    Statistic(
        "largest_hub",
        "largest hub",
        "how many of the distinct points have the largest hub among their 10 nearest, over 10",
        "none",
        True,
    ),
    Statistic(
        "orphan_share", "orphans", "share of the distinct points that are among the 10 nearest of none", "share", True
    ),
    Statistic(
        "reciprocity", "mutual neighbours", "share of the 10 nearest that have the point among their own", "share", True
    ),
    Statistic("two_nn", "dimension (TwoNN)", "intrinsic dimension from the 2 nearest, the most local", "none", True),
    Statistic("levina_bickel", "dimension (Levina-Bickel)", "intrinsic dimension from the 10 nearest", "none", True),
    Statistic("gride", "dimension (GRIDE)", "intrinsic dimension from the 8th and 16th neighbours", "none", True),
    Statistic(
        "homology_dimension",
        "dimension (H0)",
        "intrinsic dimension from the growth of the spanning tree with n",
        "none",
        True,
    ),
    Statistic(
        "local_pca_dimension",
        "dimension (local PCA)",
        "components to 90 % of the variance of 30 neighbours, mean",
        "count",
        True,
    ),
    Statistic("mean_cosine", "mean cosine", "mean cosine similarity of two points about the origin", "none", True),
    Statistic("offset", "offset", "norm of the mean over the root mean square distance from it", "none", True),
    Statistic(
        "first_component_share", "first component", "share of variance of the first principal component", "share", True
    ),
    Statistic(
        "participation_ratio", "participation ratio", "(sum v)^2 / sum v^2 of the principal variances v", "none", True
    ),
    Statistic(
        "effective_rank", "effective rank", "exponential of the entropy of the principal variances", "none", True
    ),
    Statistic("isoscore", "IsoScore", "0: all variance along a line, 1: equal in all dimensions", "share", True),
]
# of `intrinsic.intrinsic_dimensions`, with intervals; the first two are in `measures.statistics` too
WITH_INTERVALS = ("two_nn", "levina_bickel", "gride", "homology_dimension", "local_pca_dimension")
# of `anisotropy.anisotropy`
OF_POINTS = (
    "mean_cosine",
    "offset",
    "first_component_share",
    "participation_ratio",
    "effective_rank",
    "isoscore",
)
STATISTICS: dict[str, Statistic] = {statistic.name: statistic for statistic in _ALL}
