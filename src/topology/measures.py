"""All scalar statistics of one cloud that are cheap once its distances and its diagram are there."""

from src.topology.catalogue import STATISTICS, Statistic
from src.topology.distances import Distances
from src.topology.persistence import Bars, Persistence
from src.topology.spanning_tree import spanning_tree, tree_statistics
from src.topology.summaries import bar_statistics, count_longer, largest_ratio, survival_rate

__all__ = ["STATISTICS", "Statistic", "statistics"]


def statistics(
    distances: Distances, found: Persistence, scale: float, betti_fraction: float, survival_fraction: float
) -> dict[str, float]:
    """Every statistic by name; STATISTICS says what each is, its unit, and whether it is free of scale.

    Args:
        scale: the distance that the thresholds are shares of, and that `..._scaled` is in units of.
        betti_fraction: bars longer than this share of the scale count for beta_0 and beta_1 (strictly).
        survival_fraction: bars longer than this share of the scale survive (strictly).

    What has no meaning for a cloud (a share of no bars, a length in units of a scale of 0) is NaN.
    """
    threshold = betti_fraction * scale
    loops = found.bars[1] if len(found.bars) > 1 else None
    tree = spanning_tree(distances, found)
    of_tree = tree_statistics(tree)
    return {
        "n_points": float(distances.n_points),
        "n_duplicates": float(distances.n_points - tree.n_distinct),
        "scale": scale,
        "diameter": distances.diameter,
        "median_distance": distances.median,
        "diameter_over_median": _ratio(distances.diameter, distances.median),
        "beta_0": float(count_longer(found.bars[0], threshold)),
        **(_of_loops(loops, threshold, survival_fraction * scale) if loops is not None else {}),
        **{name: value for bars in found.bars for name, value in bar_statistics(bars, scale).items()},
        "h0_normalised": _ratio(of_tree["mst_mean"], distances.median),
        **of_tree,
    }


def _of_loops(loops: Bars, threshold: float, survival_threshold: float) -> dict[str, float]:
    return {
        "beta_1": float(count_longer(loops, threshold)),
        "survival_rate": survival_rate(loops, survival_threshold),
        "h1_max_ratio": largest_ratio(loops),
    }


def _ratio(value: float, unit: float) -> float:
    return value / unit if unit > 0 else float("nan")
