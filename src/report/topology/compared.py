"""What compare_topology.py found: what its tables, figures, words and files are made from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control

from src.causal.text_loss import TextLoss
from src.report.topology.published_pairs import PublishedPair
from src.report.topology.reading import Topology
from src.topology.comparisons.comparison import CloudComparison
from src.topology.comparisons.overlap import CRITERIA, overlap_p, overlap_verdict
from src.topology.inference.rank_correlation import RankCorrelation
from src.topology.measures.catalogue import STATISTICS
from src.topology.profile import CloudProfile, Measure

# what a LayerMatrix holds
CKA, RSA, BOTTLENECK = "debiased CKA", "RSA", "bottleneck / scale"
# numbers that say how a cloud was measured, not what it is like
_NOT_SHAPE = {"n_points", "n_duplicates", *(f"h{k}_infinite" for k in range(4))}


@dataclass(frozen=True, eq=False)
class ResultProfile:
    """One result: its label, the model's name, and the profiles of its clouds in the order of layers."""

    label: str
    model: str | None
    topology: Topology

    @property
    def profiles(self) -> list[CloudProfile]:
        """The clouds, by layer where they have one."""
        return sorted(self.topology.profiles, key=lambda profile: -1 if profile.layer is None else profile.layer)


@dataclass(frozen=True, eq=False)
class CloudPair:
    """Two clouds of two results, and what is told of them.

    n_points: of each that were compared. published: what the package says of them whose protocol it is, if it is one's.
    """

    first: str
    second: str
    layers: tuple[int | None, int | None]
    n_points: tuple[int, int]
    found: CloudComparison
    published: PublishedPair | None = None

    @property
    def title(self) -> str:
        """The layer, both where they differ, or the names of arrays."""
        ours, theirs = self.layers
        if ours is None or theirs is None:
            return self.first if self.first == self.second else f"{self.first}, {self.second}"
        return str(ours) if ours == theirs else f"{ours}, {theirs}"


@dataclass(frozen=True, eq=False)
class LayerMatrix:
    """One measure of all clouds of one result (rows) with all of another (columns), or of its own."""

    measure: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Float[np.ndarray, "row column"]


@dataclass(frozen=True, eq=False)
class ResultPair:
    """Two results: their clouds layer by layer, and all with all."""

    first: str
    second: str
    clouds: list[CloudPair]
    matrices: list[LayerMatrix]


@dataclass(frozen=True, eq=False)
class ComparedTopology:
    """All that was found.

    within: all layers of a result with all others, by its label. losses: of each model by name; `no_loss` says why
    there is none. correlations: of a statistic's mean over layers with the NLL, over models.
    """

    results: list[ResultProfile]
    within: dict[str, list[LayerMatrix]]
    pairs: list[ResultPair]
    losses: dict[str, TextLoss]
    no_loss: dict[str, str]
    text: str
    level: float
    correlations: dict[str, RankCorrelation] = field(default_factory=dict)

    def overlap_q(self) -> dict[tuple[str, str, str, str], float]:
        """The p of the tests of each union, corrected over all pairs of clouds (Benjamini-Hochberg)."""
        return _overlap_q(self.pairs, shape=False)

    def correspondence_q(self) -> dict[tuple[str, str, str, str], float]:
        """The p of debiased CKA of each paired comparison, corrected over all of them."""
        return _corrected(
            {
                (pair.first, pair.second, cloud.first, cloud.second): cloud.found.paired.debiased_cka.p
                for pair in self.pairs
                for cloud in pair.clouds
                if cloud.found.paired is not None
            }
        )

    def correlation_q(self) -> dict[str, float]:
        """The p of the correlations that have one, corrected over the statistics."""
        return _corrected({name: found.p for name, found in self.correlations.items() if found.p is not None})


def with_corrected_verdicts(pairs: Sequence[ResultPair], level: float) -> list[ResultPair]:
    """The same with verdicts from p-values that are corrected over all pairs of clouds."""
    criteria = replace(CRITERIA, level=level)
    corrected = [_overlap_q(pairs, shape) for shape in (False, True)]

    def judged(pair: ResultPair, cloud: CloudPair) -> CloudPair:
        union, key = cloud.found.union, (pair.first, pair.second, cloud.first, cloud.second)
        if union is None:
            return cloud
        words = [
            overlap_verdict(tests, q[key], criteria)
            for tests, q in zip((union.tests, union.shape_tests), corrected, strict=True)
        ]
        union = replace(union, verdict=words[0], shape_verdict=words[1])
        return replace(cloud, found=replace(cloud.found, union=union))

    return [replace(pair, clouds=[judged(pair, cloud) for cloud in pair.clouds]) for pair in pairs]


def _overlap_q(pairs: Sequence[ResultPair], shape: bool) -> dict[tuple[str, str, str, str], float]:
    return _corrected(
        {
            (pair.first, pair.second, cloud.first, cloud.second): overlap_p(
                cloud.found.union.shape_tests if shape else cloud.found.union.tests
            )
            for pair in pairs
            for cloud in pair.clouds
            if cloud.found.union is not None
        }
    )


def scale_free_statistics(results: Sequence[ResultProfile]) -> list[str]:
    """Statistics that all clouds have and that don't change when all distances are multiplied by a number."""
    common = [set(profile.statistics) for result in results for profile in result.topology.profiles]
    return [
        name
        for name, statistic in STATISTICS.items()
        if statistic.scale_free and name not in _NOT_SHAPE and all(name in each for each in common)
    ]


def mean_over_layers(results: Sequence[ResultProfile], name: str) -> dict[str, float]:
    """A statistic's mean over the clouds of each model: layers of one model are one unit, not many."""
    of_model: dict[str, list[float]] = {}
    for result in results:
        if result.model is not None:
            values = [_value(profile.statistics.get(name)) for profile in result.topology.profiles]
            of_model.setdefault(result.model, []).extend(values)
    means = {}
    for model, values in of_model.items():
        known = [value for value in values if np.isfinite(value)]
        means[model] = float(np.mean(known)) if known else float("nan")
    return means


def _value(measure: Measure | None) -> float:
    return float("nan") if measure is None else measure.value


def _corrected(ps: dict) -> dict:
    known = {key: p for key, p in ps.items() if np.isfinite(p)}
    if not known:
        return {}
    return dict(zip(known, false_discovery_control(list(known.values())).tolist(), strict=True))
