"""Judge operators on held-out sequences, beside the predictors that need no fit, with and without BOS rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.passes import Rows
from src.hook_points import HookPoint
from src.transport.metrics import Estimate, ResidualMetrics, ResidualTally, SequenceBootstrap
from src.transport.operator import TransportOperator

OPERATOR, IDENTITY, SHIFT, MEAN = "operator", "identity", "identity + shift", "mean"
PREDICTORS = (OPERATOR, SHIFT, IDENTITY, MEAN)

Predictor = Callable[[Float[Tensor, "row d_model"]], Float[Tensor, "row d_model"]]


@dataclass(frozen=True)
class Judgement:
    """The metrics of one predictor of one pair of layers.

    skill: 1 - SSE / SSE of the identity, paired by bootstrap replicate; 0 for the identity itself.
    dimensions: R2 of each output dimension. with_bos: the same metrics when BOS rows are scored too (None if the store
    has none).
    """

    predictor: str
    metrics: ResidualMetrics
    skill: Estimate
    dimensions: Float[Tensor, " d_model"]
    with_bos: ResidualMetrics | None


def predictors(
    operator: TransportOperator, mean_source: Float[Tensor, " d_model"], mean_target: Float[Tensor, " d_model"]
) -> dict[str, Predictor]:
    """The operator and its baselines; the means are of the training rows, so nothing is fitted on what is scored."""
    return {
        OPERATOR: operator,
        SHIFT: lambda x: x + (mean_target - mean_source).to(x),
        IDENTITY: lambda x: x,
        MEAN: lambda x: mean_target.to(x).expand_as(x),
    }


class PairJudge:
    """Collects what is needed to judge one operator while rows stream by; memory does not grow with them."""

    def __init__(
        self,
        operator: TransportOperator,
        means: Mapping[HookPoint, Float[Tensor, " d_model"]],
        bootstrap: SequenceBootstrap,
        device: torch.device,
    ) -> None:
        """means: of the training rows at the operator's source and target."""
        self.source, self.target = operator.source, operator.target
        self._device = device
        mean_source, mean_target = means[self.source].to(device), means[self.target].to(device)
        self._predictors = predictors(operator.to(device, torch.float64), mean_source, mean_target)
        self._counted = {name: ResidualTally(mean_target, bootstrap, device) for name in PREDICTORS}
        self._bos = {name: ResidualTally(mean_target, bootstrap, device) for name in PREDICTORS}
        self._has_bos = False

    def update(self, rows: Rows) -> None:
        """Score the counted rows, and the BOS rows apart."""
        for is_chosen, tallies in ((rows.is_counted, self._counted), (rows.is_bos, self._bos)):
            if not bool(is_chosen.any()):
                continue
            self._has_bos |= tallies is self._bos
            x = rows.activations[self.source][is_chosen].to(self._device, torch.float64)
            y = rows.activations[self.target][is_chosen].to(self._device, torch.float64)
            sequence = rows.sequence[is_chosen]
            for name, predict in self._predictors.items():
                tallies[name].update(predict(x), y, sequence)

    def result(self) -> list[Judgement]:
        """One judgement per predictor. Raises StrataError if no row was scored."""
        judgements = []
        for name in PREDICTORS:
            tally = self._counted[name]
            judgements.append(
                Judgement(
                    predictor=name,
                    metrics=tally.result(),
                    skill=tally.skill(self._counted[IDENTITY]),
                    dimensions=tally.r2_of_dimensions(),
                    with_bos=self._bos[name].merge(tally).result() if self._has_bos else None,
                )
            )
        return judgements


def judge_pairs(
    judges: Sequence[PairJudge], batches: Iterable[Rows], advance: Callable[[int], None]
) -> list[list[Judgement]]:
    """Stream held-out rows past all judges. advance: is told the number of tokens done."""
    for rows in batches:
        for judge in judges:
            judge.update(rows)
        advance(len(rows.sequence))
    return [judge.result() for judge in judges]
