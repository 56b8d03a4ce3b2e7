"""Verdicts on whether two clouds overlap: from tests of their union at one scale, and from nothing else."""

from dataclasses import dataclass
from typing import Literal

from src.errors import StrataError
from src.topology.comparisons.two_sample import TwoSample
from src.topology.homology.persistence import Bars
from src.topology.measures.summaries import count_longer

Verdict = Literal["apart", "partly overlapping", "mixed, yet different", "no difference found"]


@dataclass(frozen=True)
class OverlapCriteria:
    """What the verdict means; all are free of scale.

    Attributes:
        level: of the smallest of three p-values (Friedman-Rafsky, energy, MMD), corrected for there being three.
        apart, mixed: cross edges of the spanning tree, as a share of those expected of one distribution: below the
            one the clouds are apart, from the other on mixed.
    """

    level: float = 0.05
    apart: float = 0.1
    mixed: float = 0.8


CRITERIA = OverlapCriteria()


def overlap_p(tests: TwoSample) -> float:
    """One p-value of the three tests (Bonferroni)."""
    return min(1.0, 3 * min(tests.friedman_rafsky.p, tests.energy.p, tests.mmd.p))


def overlap_verdict(tests: TwoSample, p: float | None = None, criteria: OverlapCriteria = CRITERIA) -> Verdict:
    """Whether the clouds lie apart, overlap in part, mix but differ, or can't be told apart.

    "No difference found" is not "the same": it depends on the number of points. p: that of the tests, where it is
    corrected for other pairs of clouds; None = `overlap_p`.
    """
    if (overlap_p(tests) if p is None else p) > criteria.level:
        return "no difference found"
    ratio = tests.friedman_rafsky.ratio
    return (
        "apart"
        if ratio < criteria.apart
        else "partly overlapping"
        if ratio < criteria.mixed
        else "mixed, yet different"
    )


@dataclass(frozen=True)
class UnionCounts:
    """Bars longer than one threshold, the same for both clouds and their union."""

    threshold: float
    first: int
    second: int
    union: int

    @property
    def kept(self) -> float:
        """The union's count as a share of the sum of both: about 1 where the clouds lie apart; NaN without bars."""
        total = self.first + self.second
        return self.union / total if total else float("nan")


def union_counts(first: Bars, second: Bars, union: Bars, thresholds: tuple[float, float, float]) -> UnionCounts:
    """Count long bars in two clouds and in their union.

    thresholds: above which the bars of each of the three were counted, in the units of the clouds.

    Raises:
        StrataError: if the thresholds differ: bars that are counted at one scale and hidden at another would look as
            if they had merged.
    """
    low, high = min(thresholds), max(thresholds)
    if high - low > 1e-9 * high:
        raise StrataError(
            "no verdict on overlap: bars of the first cloud are counted above {:.4g}, of the second above {:.4g}, of "
            "the union above {:.4g}, and what the coarser scale hides would look merged; count all three above one "
            "threshold".format(*thresholds)
        )
    return UnionCounts(thresholds[0], *(count_longer(bars, thresholds[0]) for bars in (first, second, union)))
