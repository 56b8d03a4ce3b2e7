"""Tables and figures of causal evaluations: what is left out, and what is not."""

from dataclasses import replace

import pytest

from src.causal.design import Trial
from src.causal.evaluate import CausalEvaluation, TrialResult
from src.causal.scores import EditProof
from src.causal.summaries import ConditionSummary
from src.report.causal import causal_figures, result_tables
from src.report.causal_records import causal_metrics, condition_records
from src.transport.bootstrap import Estimate
from src.transport.pairs import LayerPair

NAN = float("nan")


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def result(leap: int, intervention: str, change: float, share: float | None, distances: tuple[float, ...]):
    trial = Trial(LayerPair(0, leap), intervention, "", intervention, "all", (intervention,))
    summary = ConditionSummary(5, 20, 10, *map(exactly, (1.0, change / 2, 1.0, change, change, 0.5)))
    recovered = {} if share is None else {"mean": exactly(share)}
    return TrialResult(trial, summary, recovered, [exactly(d) for d in distances], EditProof(10, 0.0, 0.0))


def evaluation(harm_of_far: float, distances=(0.2, 0.1)) -> CausalEvaluation:
    """Two pairs; mean ablation costs 2 nats in the first, and `harm_of_far` in the second."""
    results = [
        result(1, "transport", 0.2, 0.9, distances),
        result(1, "mean", 2.0, None, distances),
        result(2, "transport", 0.004, 0.5, distances),
        result(2, "mean", harm_of_far, None, distances),
    ]
    return CausalEvaluation(results, exactly(1.0), 5, 5, (0, 1), 40)


def shares(made: CausalEvaluation) -> list:
    (table,), _ = result_tables(made, "ridge at resid_post")
    assert "predictions. ridge at resid_post. Clean" in table.caption
    return [row[list(table.columns).index("vs mean")] for row in table.rows]


@pytest.mark.parametrize(("harm", "is_shown"), [(0.02, True), (0.009, False), (-0.5, False)])
def test_no_share_is_shown_of_an_ablation_that_does_next_to_no_harm(harm, is_shown):
    made = evaluation(harm)
    near, far = shares(made)
    assert near["value"] == 0.9
    assert (far is not None) == is_shown
    (heatmap,) = [figure for figure in causal_figures(made) if figure.name.startswith("recovered")]
    cells = [row for row in heatmap.chart.to_dict()["data"]["values"] if row["score"] is not None]
    assert [cell["leap"] for cell in cells] == ([1, 2] if is_shown else [1])
    # files and trackers keep every number
    assert [record.get("recovered_vs_mean") for record in condition_records(made, {})] == [0.9, None, 0.5, None]
    assert causal_metrics(made)["L0_k2/transport/recovered_vs_mean"] == 0.5


def test_distances_are_drawn_where_there_is_more_than_one():
    names = [figure.name for figure in causal_figures(evaluation(1.0))]
    assert "distance" in names
    at_once = evaluation(1.0, distances=(0.2, NAN))
    assert "distance" not in [figure.name for figure in causal_figures(at_once)]
    several = replace(at_once, results=[*at_once.results[:3], result(2, "mean", 1.0, None, (0.2, 0.1))])
    assert "distance" in [figure.name for figure in causal_figures(several)]
