"""The matched-rank analysis of one pair of layers: what it is given, and all that it finds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from src.activations.statistics import Statistics
from src.config.matched_rank import FLOOR, PERMUTATIONS, MatchedRankConfig
from src.errors import StrataError
from src.transport.bootstrap import Estimate
from src.transport.canonical import CrossFit, independent_edge
from src.transport.operator import TransportOperator
from src.transport.permutation import PermutationTest
from src.transport.rank import MatchedRank
from src.transport.rank_bootstrap import RankBands


@dataclass(frozen=True)
class RankSettings:
    """`MatchedRankConfig` with every default filled in, but alpha: None = the operator's own, or 0.

    ranks: those of the table of efficiencies.
    """

    permutations: int
    floor: float
    alpha: float | None
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, config: MatchedRankConfig, d_model: int) -> Self:
        """The settings for a model. Raises StrataError if a rank is above d_model."""
        if config.ranks and max(config.ranks) > d_model:
            raise StrataError(f"matched_rank.ranks: {max(config.ranks)} is above d_model, which is {d_model}")
        ranks = config.ranks or [*(rank for rank in (1, 4, 16, 64, 256, 1024) if 2 * rank <= d_model), d_model]
        return cls(
            PERMUTATIONS if config.permutations is None else config.permutations,
            FLOOR if config.floor is None else config.floor,
            config.alpha,
            tuple(sorted(set(ranks))),
        )

    def identity(self) -> dict[str, Any]:
        """What decides the result, for the fingerprint of an artifact."""
        return {**asdict(self), "ranks": list(self.ranks)}

    def penalty(self, operator: TransportOperator, fit: Mapping[str, Any], train: Statistics) -> float:
        """The absolute penalty of the reduced-rank regressions of a pair.

        fit: the settings of the operator's fit. Only of a ridge on activations as they are is the reduced-rank
        regression with the same penalty the operator itself at full rank; beside others stands least squares.
        """
        if self.alpha is not None:
            scatter = train.square_scatter(operator.source)
            return self.alpha * float(scatter.mean())
        changed = fit.get("normalize") or fit.get("target", "y") != "y" or fit.get("alpha_per_output")
        return 0.0 if operator.method != "ridge" or changed or operator.alpha is None else operator.alpha


@dataclass(frozen=True)
class PairRanks:
    """Everything about one pair.

    matched: curves on the test rows from moments. bands: the same with intervals. observed: the cross-fitted
    correlations over the folds of train. permutation: their null; None if no document was shuffled.
    """

    matched: MatchedRank
    bands: RankBands
    observed: CrossFit
    permutation: PermutationTest | None

    @property
    def d(self) -> int:
        """Number of ranks."""
        return len(self.matched.correlations)

    @property
    def explained_dimensions(self) -> Estimate:
        """Size of the linear transport subspace, with its jackknife interval over the folds."""
        return self.observed.jackknife(lambda fit: fit.explained_dimensions)

    @property
    def participation_ratio(self) -> Estimate:
        """Over how many directions it is spread, with its jackknife interval over the folds."""
        return self.observed.jackknife(lambda fit: fit.participation_ratio)

    @property
    def edge(self) -> float:
        """The largest in-sample correlation to expect of independent rows."""
        canonical = self.matched.canonical
        return independent_edge(canonical.n_rows, canonical.source_rank, canonical.target_rank)
