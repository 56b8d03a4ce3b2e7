"""From results of measure_topology.py to all comparisons between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from src.artifacts import Parent, label
from src.config.compare_topology import CompareTopologyConfig
from src.report.topology.compared import (
    BOTTLENECK,
    CKA,
    RSA,
    CloudPair,
    ComparedTopology,
    LayerMatrix,
    ResultPair,
    ResultProfile,
    with_corrected_verdicts,
)
from src.report.topology.comparison import Group, layers_group, pair_groups, profile_group
from src.report.topology.perplexity import perplexity_group
from src.report.topology.reading import Topology
from src.stage.context import Stage
from src.stage.topology_comparison.matching import match_clouds, match_points
from src.stage.topology_comparison.perplexity import ReadText, correlate, measure_losses, prepare_texts
from src.stage.topology_comparison.published import published_pair
from src.stage.topology_comparison.results import Result, check_single, find_results
from src.topology.comparisons.comparison import ComparedCloud, Draws, compare_clouds
from src.topology.comparisons.diagram_distances import bottleneck_matrix
from src.topology.comparisons.layer_matrices import cka_matrices, rsa_matrix
from src.topology.homology.distances import Distances
from src.topology.profile import CloudProfile


@dataclass(frozen=True, eq=False)
class Work:
    """The results that are compared, and the text that their models read."""

    config: CompareTopologyConfig
    results: list[Result]
    texts: list[ReadText]

    @property
    def label(self) -> str:
        """The results, by name while they are few."""
        names = [result.label for result in self.results]
        return label(*(names if len(names) <= 3 else [self.config.experiment_name, f"{len(names)}-results"]))

    @property
    def parents(self) -> list[Parent]:
        """The results and the texts."""
        made_from = [result.topology.artifact for result in self.results] + [each.text for each in self.texts]
        return list(dict.fromkeys(artifact.parent for artifact in made_from))

    def identity(self) -> dict[str, Any]:
        """What decides the numbers, beside the parents."""
        keys = {"match_layers", "pairing", "same_basis", "level", "draws", "seed"}
        return {
            **self.config.model_dump(mode="json", include=keys),
            "reference": None if self.config.reference is None else self.results[0].label,
            "labels": [result.label for result in self.results],
            "models": {each.name: each.weights for each in self.texts},
        }


def prepare(config: CompareTopologyConfig, stage: Stage) -> Work:
    """Find the results, refuse what can't be compared, and read the text.

    Raises:
        StrataError: no results, results that do not go together, a text that can't be read.
    """
    results = find_results(config, stage)
    check_single(results)
    for first, second in result_pairs(config, results):
        match_clouds(first, second, config.match_layers)
    return Work(config, results, prepare_texts(config, results, stage))


def compare(work: Work, stage: Stage) -> ComparedTopology:
    """All comparisons, and the models' perplexity.

    Raises:
        StrataError: rows that do not go together.
    """
    config, results = work.config, work.results
    profiles = [ResultProfile(result.label, result.topology.model_name, result.topology) for result in results]
    pairs = compare_pairs(config, result_pairs(config, results), stage)
    with stage.progress("all layers against all", len(results), "results") as advance:
        within = {}
        for result in results:
            within[result.label] = layer_matrices(result.topology, None, config.pairing)
            advance(1)
    losses, no_loss = measure_losses(config, work.texts, stage)
    split = config.dataset.dataset_split
    text = f"{config.dataset.dataset_name}{f' ({split})' if split else ''}"
    correlations = correlate(profiles, losses, config.seed)
    return ComparedTopology(profiles, within, pairs, losses, no_loss, text, config.level, correlations)


def groups_of(found: ComparedTopology) -> list[Group]:
    """The parts of the report."""
    parts = [profile_group(found), *pair_groups(found), layers_group(found), perplexity_group(found)]
    return [part for part in parts if part is not None]


def result_pairs(config: CompareTopologyConfig, results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Each with each, or the reference with each of the others."""
    if config.reference is not None:
        return [(results[0], other) for other in results[1:]]
    return list(combinations(results, 2))


def compare_pairs(
    config: CompareTopologyConfig, pairs: Sequence[tuple[Result, Result]], stage: Stage
) -> list[ResultPair]:
    """All comparisons of pairs of results, layer by layer, and all layers with all.

    Raises:
        StrataError: results without clouds or rows that go together.
    """
    plan = [(first, second, match_clouds(first, second, config.match_layers)) for first, second in pairs]
    found = []
    with stage.progress("comparing", sum(len(clouds) for *_, clouds in plan), "pairs of clouds") as advance:
        for first, second, matched in plan:
            clouds = []
            for name, other in matched:
                clouds.append(_compare(config, first.topology, name, second.topology, other))
                advance(1)
            matrices = layer_matrices(first.topology, second.topology, config.pairing)
            found.append(ResultPair(first.label, second.label, clouds, matrices))
    return with_corrected_verdicts(found, config.level)


def _compare(config: CompareTopologyConfig, first: Topology, name: str, second: Topology, other: str) -> CloudPair:
    points = match_points(first, name, second, other, config.pairing)
    profiles = first.profile(name), second.profile(other)
    clouds = [
        ComparedCloud(topology.points(profile.name)[rows].astype(np.float64), profile.persistence, profile.scale, units)
        for topology, profile, rows, units in (
            (first, profiles[0], points.first, points.units_first),
            (second, profiles[1], points.second, points.units_second),
        )
    ]
    draws = Draws(**config.draws.model_dump(), seed=config.seed)
    found = compare_clouds(
        clouds[0], clouds[1], first.protocol["metric"], draws, points.paired, same_basis=config.same_basis
    )
    layers = profiles[0].layer, profiles[1].layer
    pair = CloudPair(name, other, layers, (len(points.first), len(points.second)), found)
    return replace(pair, published=published_pair(pair.title, first, name, second, other))


def layer_matrices(first: Topology, second: Topology | None, pairing: str) -> list[LayerMatrix]:
    """All clouds of a result with all others of it (`second` None), or with all of another result.

    CKA and RSA where all clouds are of the same points, or pairs of them; distances of diagrams always.
    """
    other = first if second is None else second
    ours, theirs = _in_order(first), _in_order(other)
    rows, columns = (tuple(profile.name for profile in side) for side in (ours, theirs))
    found = []
    common = _common_rows(first, ours, other, theirs, pairing)
    if common is not None and (second is not None or len(ours) > 1):
        points = [
            [topology.points(profile.name)[kept].astype(np.float64) for profile in side]
            for topology, side, kept in ((first, ours, common[0]), (other, theirs, common[1]))
        ]
        metric = first.protocol["metric"]
        distances = [[Distances.from_points(cloud, metric) for cloud in side] for side in points]
        own = second is None
        found.append(LayerMatrix(CKA, rows, columns, cka_matrices(points[0], None if own else points[1])[1]))
        found.append(LayerMatrix(RSA, rows, columns, rsa_matrix(distances[0], None if own else distances[1])))
    if all(len(profile.persistence.bars) > 1 and profile.scale > 0 for profile in (*ours, *theirs)):
        bars = [[profile.persistence.bars[1] for profile in side] for side in (ours, theirs)]
        scales = [[profile.scale for profile in side] for side in (ours, theirs)]
        if second is None:
            bars[1], scales[1] = bars[0], scales[0]
        found.append(LayerMatrix(BOTTLENECK, rows, columns, bottleneck_matrix(bars[0], bars[1], scales[0], scales[1])))
    return found


def _in_order(topology: Topology) -> list[CloudProfile]:
    return ResultProfile("", None, topology).profiles


def _common_rows(
    first: Topology, ours: list[CloudProfile], second: Topology, theirs: list[CloudProfile], pairing: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the clouds of two results that are pairs, if these are the same rows for all of their clouds."""
    how = "auto" if pairing == "none" and first is second else pairing
    pairs = [match_points(first, ours[0].name, second, profile.name, how) for profile in theirs]  # type: ignore[arg-type]
    pairs += [match_points(first, profile.name, second, theirs[0].name, how) for profile in ours]  # type: ignore[arg-type]
    same = all(
        pair.paired and np.array_equal(pair.first, pairs[0].first) and np.array_equal(pair.second, pairs[0].second)
        for pair in pairs
    )
    return (pairs[0].first, pairs[0].second) if same else None
