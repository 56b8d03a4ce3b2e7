"""Judge operators on held-out documents, beside the predictors that need no fit, without and with first tokens (BOS).

What is shared is summed once: the truth of a target serves all pairs that lead to it, and is the squared error of the
mean baseline too; the error of the identity follows from that of identity + shift and the sums at both ends.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from src.activations.passes import Rows
from src.activations.products import arithmetic_device
from src.hook_points import HookPoint
from src.transport.bootstrap import DocumentBootstrap, Estimate
from src.transport.metrics import ErrorSums, ResidualMetrics, TruthSums, residual_metrics, skill
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair
from src.transport.tally import N_CLASSES, ReplicateSums, ScoredRows

OPERATOR, IDENTITY, SHIFT, MEAN = "operator", "identity", "identity + shift", "mean"
PREDICTORS = (OPERATOR, SHIFT, IDENTITY, MEAN)

# For the sums of the pairs that are judged in one pass over the test share; more pairs take more passes.
MEMORY_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Judgement:
    """The metrics of one predictor of one pair of layers.

    skill: 1 - SSE / SSE of the identity, paired by bootstrap replicate; 0 for the identity itself.
    with_bos: the same metrics when the first token of every sequence is scored too (None if all of those are counted).
    """

    metrics: ResidualMetrics
    skill: Estimate
    with_bos: ResidualMetrics | None


@dataclass(frozen=True)
class PairEvaluation:
    """How an operator does beside its baselines. predictors: by name, in the order of PREDICTORS."""

    hook: str
    method: str
    alpha: float | None
    predictors: Mapping[str, Judgement]


def memory_blocks(
    pairs: Sequence[LayerPair], d_model: int, replicates: int, memory: int = MEMORY_BYTES
) -> list[list[LayerPair]]:
    """Cut pairs into blocks whose sums fit a memory budget in bytes; a block holds one pair at least."""
    per_dimension = 8 * N_CLASSES * (replicates + 1)
    blocks: list[list[LayerPair]] = []
    for pair in pairs:
        longer = [*(blocks[-1] if blocks else []), pair]
        targets = {(each.L + each.k, each.offset) for each in longer}
        sources = {(each.L, 0) for each in longer} - targets
        arrays = _PairSums.N_SUMS * len(longer) + _TargetSums.N_SUMS * len(targets) + len(sources)
        if blocks and d_model * (arrays * per_dimension + 8 * d_model * len(longer)) <= memory:
            blocks[-1] = longer
        else:
            blocks.append([pair])
    return blocks


@torch.no_grad()
def judge_pairs(
    operators: Mapping[LayerPair, TransportOperator],
    means: Mapping[HookPoint, Float[Tensor, " d_model"]],
    batches: Iterable[Rows],
    bootstrap: DocumentBootstrap,
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[LayerPair, PairEvaluation]:
    """Stream held-out rows past all operators; memory does not grow with the rows (see `memory_blocks`).

    means: of the training rows at every source and target, so that no baseline is fitted on what is scored. advance:
    is told the number of tokens done. Raises StrataError if no row was scored, or a prediction is NaN or infinite.
    """
    device = arithmetic_device(device)
    operators = {pair: operator.to(device, torch.float64) for pair, operator in operators.items()}
    means = {point: mean.to(device, torch.float64) for point, mean in means.items()}
    counts = ReplicateSums(bootstrap.replicates, (), device)
    targets = {
        point: _TargetSums(point, means[point], bootstrap.replicates)
        for point in dict.fromkeys(operator.target for operator in operators.values())
    }
    sources = {
        point: _SourceSums(point, means[point], bootstrap.replicates)
        for point in dict.fromkeys(operator.source for operator in operators.values())
        if point not in targets
    }
    pairs = {pair: _PairSums(operator, means, bootstrap.replicates) for pair, operator in operators.items()}
    has_first = False
    for rows in batches:
        scored = ScoredRows.of(rows, bootstrap, device)
        if len(scored.index):
            has_first |= scored.has_first
            counts.add(scored, scored.segment_sizes())
            for sums in (*targets.values(), *sources.values(), *pairs.values()):
                sums.add(scored)
        advance(len(rows.document))

    @cache
    def mean_metrics(point: HookPoint, with_first: bool) -> ResidualMetrics:
        truth = targets[point].truth(counts, with_first)
        return residual_metrics(truth, targets[point].mean_errors(with_first))

    def metrics_of(pair: LayerPair, with_first: bool) -> tuple[dict[str, ResidualMetrics], dict[str, Estimate]]:
        source, target = operators[pair].source, operators[pair].target
        truth = targets[target].truth(counts, with_first)
        source_sum = (targets | sources)[source].sum(with_first)
        errors = pairs[pair].errors(truth, source_sum, with_first)
        metrics = {name: residual_metrics(truth, of_name) for name, of_name in errors.items()}
        metrics[MEAN] = mean_metrics(target, with_first)
        errors[MEAN] = targets[target].mean_errors(with_first)
        return metrics, {name: skill(of_name, errors[IDENTITY]) for name, of_name in errors.items()}

    def evaluation(pair: LayerPair) -> PairEvaluation:
        metrics, skills = metrics_of(pair, with_first=False)
        with_bos = metrics_of(pair, with_first=True)[0] if has_first else {}
        judgements = {name: Judgement(metrics[name], skills[name], with_bos.get(name)) for name in PREDICTORS}
        operator = operators[pair]
        return PairEvaluation(operator.target.hook, operator.method, operator.alpha, judgements)

    return {pair: evaluation(pair) for pair in operators}


class _SourceSums:
    """Sums of deviations from the training mean at a hook point."""

    def __init__(self, point: HookPoint, mean: Float[Tensor, " d_model"], replicates: int) -> None:
        self._point, self._mean = point, mean
        self._sums = ReplicateSums(replicates, mean.shape, mean.device)

    def add(self, rows: ScoredRows) -> None:
        per_segment = rows.zeros(*self._mean.shape)
        for segment, (x,) in rows.blocks(self._point):
            per_segment.index_add_(0, segment, x.sub_(self._mean))
        self._sums.add(rows, per_segment)

    def sum(self, with_first: bool) -> Float[Tensor, "replicate d_model"]:
        return self._sums.of_rows(with_first=with_first)


class _TargetSums:
    """Sums of deviations from the training mean at a target, of their squares, and of the cosine of the mean."""

    N_SUMS = 2

    def __init__(self, point: HookPoint, mean: Float[Tensor, " d_model"], replicates: int) -> None:
        self._point, self._mean = point, mean
        self._sums = ReplicateSums(replicates, (self.N_SUMS, len(mean)), mean.device)
        self._cosines = ReplicateSums(replicates, (), mean.device)

    def add(self, rows: ScoredRows) -> None:
        per_segment, cosines = rows.zeros(self.N_SUMS, len(self._mean)), rows.zeros()
        for segment, (y,) in rows.blocks(self._point):
            cosines.index_add_(0, segment, _cosine(y @ self._mean, y, self._mean))
            deviation = y - self._mean
            per_segment.index_add_(0, segment, torch.stack((deviation, deviation.square()), 1))
        self._sums.add(rows, per_segment)
        self._cosines.add(rows, cosines)

    def sum(self, with_first: bool) -> Float[Tensor, "replicate d_model"]:
        return self._sums.of_rows(with_first=with_first)[:, 0]

    def truth(self, counts: ReplicateSums, with_first: bool) -> TruthSums:
        sums = self._sums.of_rows(with_first=with_first)
        return TruthSums(counts.of_rows(with_first=with_first), sums[:, 0], sums[:, 1])

    def mean_errors(self, with_first: bool) -> ErrorSums:
        """Of predicting the training mean."""
        squares = self._sums.of_rows(with_first=with_first)[:, 1]
        return ErrorSums(squares, self._cosines.of_rows(with_first=with_first))


class _PairSums:
    """Sums of squared errors of an operator and of identity + shift, and of the cosines of these and the identity."""

    N_SUMS = 2

    def __init__(
        self, operator: TransportOperator, means: Mapping[HookPoint, Float[Tensor, " d_model"]], replicates: int
    ) -> None:
        self._operator = operator
        self._shift = means[operator.target] - means[operator.source]
        self._errors = ReplicateSums(replicates, (self.N_SUMS, len(self._shift)), self._shift.device)
        self._cosines = ReplicateSums(replicates, (3,), self._shift.device)

    def add(self, rows: ScoredRows) -> None:
        per_segment, cosines = rows.zeros(self.N_SUMS, len(self._shift)), rows.zeros(3)
        for segment, (x, y) in rows.blocks(self._operator.source, self._operator.target):
            predictions = torch.stack((self._operator(x), x + self._shift, x), 1)
            dot = torch.einsum("npd,nd->np", predictions, y)
            cosines.index_add_(0, segment, _cosine(dot, predictions, y[:, None]))
            per_segment.index_add_(0, segment, predictions[:, :2].sub_(y[:, None]).square_())
        self._errors.add(rows, per_segment)
        self._cosines.add(rows, cosines)

    def errors(
        self, truth: TruthSums, source_sum: Float[Tensor, "replicate d_model"], with_first: bool
    ) -> dict[str, ErrorSums]:
        """By predictor. With u and v the deviations at both ends, SHIFT errs by v - u, and y - x = v - u + shift."""
        sse, cosines = (sums.of_rows(with_first=with_first) for sums in (self._errors, self._cosines))
        cross = 2 * self._shift * (truth.sum - source_sum) + truth.count[:, None] * self._shift.square()
        return {
            OPERATOR: ErrorSums(sse[:, 0], cosines[:, 0]),
            SHIFT: ErrorSums(sse[:, 1], cosines[:, 1]),
            IDENTITY: ErrorSums((sse[:, 1] + cross).clamp(min=0), cosines[:, 2]),
        }


def _cosine(
    dot: Float[Tensor, "*row"], x: Float[Tensor, "*row d_model"], y: Float[Tensor, "*row d_model"]
) -> Float[Tensor, "*row"]:
    """The uncentred cosine; 0 where a vector is 0."""
    smallest = 1e-8
    return dot / (vector_norm(x, dim=-1).clamp(min=smallest) * vector_norm(y, dim=-1).clamp(min=smallest))
