"""All scalar statistics of one cloud that are cheap once its distances and its diagram are there."""

from collections.abc import Iterable

from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Bars, Persistence
from src.topology.homology.spanning_tree import spanning_tree, tree_statistics
from src.topology.measures.catalogue import STATISTICS, Statistic
from src.topology.measures.dimension import for_dimension, levina_bickel, two_nn
from src.topology.measures.neighbours import K, Neighbours, neighbour_distances, neighbour_graph
from src.topology.measures.summaries import bar_statistics, count_longer, largest_ratio, survival_rate

_OF_DISTANCES = [name for name in STATISTICS if name.startswith("knn_")]
_OF_DISTINCT = ["hubness", "largest_hub", "orphan_share", "reciprocity", "two_nn", "levina_bickel"]

__all__ = ["STATISTICS", "Statistic", "statistics"]


def statistics(
    distances: Distances, found: Persistence, scale: float, betti_fraction: float, survival_fraction: float
) -> dict[str, float]:
    """Every statistic by name; STATISTICS says what each is, its unit, and whether it is free of scale.

    `scale` is the distance that thresholds are shares of, and that `..._scaled` is in units of. Bars longer than
    betti_fraction * scale count for beta_0 and beta_1, those longer than survival_fraction * scale survive (strictly).
    Neighbours are the 10 nearest: their statistics are NaN of clouds of 10 points or fewer. The neighbours' graph and
    the dimensions are of distinct points.

    What has no meaning for a cloud (a share of no bars, a length in units of a scale of 0) is NaN.
    """
    threshold = betti_fraction * scale
    components, *above = found.bars
    tree = spanning_tree(distances, found)
    of_tree = tree_statistics(tree)
    return {
        "n_points": float(distances.n_points),
        "n_duplicates": float(distances.n_points - tree.n_distinct),
        "scale": scale,
        "diameter": distances.diameter,
        "median_distance": distances.median,
        "diameter_over_median": _ratio(distances.diameter, distances.median),
        "beta_0": float(count_longer(components, threshold)),
        **(_of_loops(above[0], threshold, survival_fraction * scale) if above else {}),
        **{name: value for bars in found.bars for name, value in bar_statistics(bars, scale).items()},
        "h0_normalised": _ratio(of_tree["mst_mean"], distances.median),
        **of_tree,
        **_of_neighbours(distances, scale),
    }


def _of_neighbours(distances: Distances, scale: float) -> dict[str, float]:
    everyone = _nearest(distances)
    kept = for_dimension(distances)
    apart = everyone if kept is distances else _nearest(kept)
    of_distances = neighbour_distances(everyone, scale) if everyone else _nothing(_OF_DISTANCES)
    if apart is None:
        return of_distances | _nothing(_OF_DISTINCT)
    dimensions = {"two_nn": two_nn(apart).value, "levina_bickel": levina_bickel(apart, K).value}
    return of_distances | neighbour_graph(apart) | dimensions


def _nearest(distances: Distances) -> Neighbours | None:
    return Neighbours.of(distances, K) if distances.n_points > K else None


def _nothing(names: Iterable[str]) -> dict[str, float]:
    return dict.fromkeys(names, float("nan"))


def _of_loops(loops: Bars, threshold: float, survival_threshold: float) -> dict[str, float]:
    return {
        "beta_1": float(count_longer(loops, threshold)),
        "survival_rate": survival_rate(loops, survival_threshold),
        "h1_max_ratio": largest_ratio(loops),
    }


def _ratio(value: float, unit: float) -> float:
    return value / unit if unit > 0 else float("nan")
