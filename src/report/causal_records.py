"""The numbers of a causal evaluation as flat records, for files and experiment trackers."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.causal.evaluate import CausalEvaluation, TrialResult
from src.causal.positions import POOLED
from src.report.records import estimate_fields


def condition_records(evaluation: CausalEvaluation, operators: Mapping[tuple, str]) -> list[dict[str, Any]]:
    """One flat record per trial with every number and its interval: what the parquet and JSON hold.

    operators: the artifact of each operator, by (pair, name of the operator).
    """
    records = []
    for result in evaluation.results:
        trial, summary = result.trial, result.summary
        record: dict[str, Any] = {
            "L": trial.pair.L,
            "k": trial.pair.k,
            "offset": trial.pair.offset,
            "intervention": trial.intervention,
            "operator": trial.operator or None,
            "operators": operators.get((trial.pair, trial.operator)),
            **({"features": trial.features} if trial.features else {}),
            "positions": trial.positions,
            "conditions": list(trial.conditions),
            "n_sequences": summary.n_sequences,
            "n_predictions": summary.n_predictions,
            "n_affected": summary.n_affected,
        }
        for name in (
            "nll_clean", "nll_change", "nll_clean_affected", "nll_change_affected", "kl_affected", "agreement_affected",
        ):  # fmt: skip
            record |= estimate_fields(name, getattr(summary, name))
        for name, estimate in result.recovered.items():
            record |= estimate_fields(f"recovered_vs_{name}", estimate)
        record |= {
            "tokens_edited": result.proof.tokens,
            "max_deviation": result.proof.max_deviation,
            "max_change_before": result.proof.max_change_before,
        }
        records.append(record)
    return records


def distance_records(evaluation: CausalEvaluation) -> list[dict[str, Any]]:
    """One record per trial and bin of distance from the first edit."""
    return [
        {
            "L": result.trial.pair.L,
            "k": result.trial.pair.k,
            "offset": result.trial.pair.offset,
            "intervention": result.trial.intervention,
            "operator": result.trial.operator or None,
            **({"features": result.trial.features} if result.trial.features else {}),
            "positions": result.trial.positions,
            "distance_from": first,
            "distance_to": last,
            **estimate_fields("nll_change", estimate),
        }
        for result in evaluation.results
        for (first, last), estimate in zip(bins(evaluation.distances), result.by_distance, strict=True)
    ]


def causal_metrics(evaluation: CausalEvaluation) -> dict[str, float]:
    """Change of log-perplexity and recovered shares of every intervention, by name, for experiment trackers."""
    metrics = {"clean_nll": evaluation.clean_nll.value}
    for result in together(evaluation):
        name = f"{result.trial.pair}/{result.trial.label}"
        metrics[f"{name}/nll_change"] = result.summary.nll_change_affected.value
        metrics |= {f"{name}/recovered_vs_{key}": share.value for key, share in result.recovered.items()}
    return metrics


def bins(distances: Sequence[int]) -> list[tuple[int, int | None]]:
    """First and last distance of each bin; the last bin has no end."""
    ends: list[int | None] = [after - 1 for after in distances[1:]]
    return list(zip(distances, [*ends, None], strict=True))


def together(evaluation: CausalEvaluation) -> list[TrialResult]:
    """Of each pair and intervention the trial that counts all sets of positions."""
    pooled = [result for result in evaluation.results if result.trial.positions == POOLED]
    return pooled or list(evaluation.results)
