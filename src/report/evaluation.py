"""What eval.py shows and writes: operators beside their baselines, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.figures.heatmap import pair_heatmap
from src.report.figures.transport import baseline_bars, bos_effect, dimension_quantiles
from src.report.tables import Interval, Table
from src.transport.evaluate import IDENTITY, MEAN, OPERATOR, SHIFT, Judgement
from src.transport.metrics import Estimate, ResidualMetrics
from src.transport.pairs import LayerPair

Judgements = Mapping[LayerPair, Sequence[Judgement]]


def interval(estimate: Estimate) -> Interval:
    """An estimate as a table cell."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def summary_table(judgements: Judgements) -> Table:
    """One row per pair: the operator with intervals, and the R2 of each baseline beside it."""
    rows = []
    for pair, of_pair in judgements.items():
        by_name = {judgement.predictor: judgement for judgement in of_pair}
        operator = by_name[OPERATOR]
        rows.append(
            [
                pair.L,
                pair.k,
                interval(operator.metrics.r2_uniform),
                interval(operator.skill),
                operator.metrics.cosine.value,
                operator.metrics.r2_variance_weighted.value,
                *(by_name[name].metrics.r2_variance_weighted.value for name in (SHIFT, IDENTITY, MEAN)),
            ]
        )
    columns = ["L", "k", "R²", "skill", "cosine", "R² vw", "shift vw", "identity vw", "mean vw"]
    return Table("Transport operators on held-out sequences", columns, rows, _caption(judgements))


def _caption(judgements: Judgements) -> str:
    n_rows = {judgement.metrics.n_rows for of_pair in judgements.values() for judgement in of_pair}
    return (
        f"{' or '.join(f'{count:,}' for count in sorted(n_rows))} test tokens, BOS left out; 95 % intervals from a "
        "bootstrap over sequences. vw: dimensions weighted by variance. skill: 1 - SSE / SSE of the identity."
    )


def residual_table(judgements: Judgements) -> Table:
    """One row per pair and predictor."""
    rows = []
    for pair, of_pair in judgements.items():
        for judgement in of_pair:
            metrics = judgement.metrics
            rows.append(
                [
                    pair.L,
                    pair.k,
                    judgement.predictor,
                    interval(metrics.r2_uniform),
                    interval(metrics.r2_variance_weighted),
                    interval(judgement.skill),
                    interval(metrics.mse),
                    interval(metrics.cosine),
                ]
            )
    return Table(
        "Every predictor", ["L", "k", "predictor", "R²", "R² vw", "skill", "MSE", "cosine"], rows, _caption(judgements)
    )


def bos_table(judgements: Judgements) -> Table | None:
    """What scoring the BOS rows too does to R2; None if the store has no BOS rows."""
    rows = [
        [
            pair.L,
            pair.k,
            judgement.predictor,
            interval(judgement.metrics.r2_variance_weighted),
            interval(judgement.with_bos.r2_variance_weighted),
        ]
        for pair, of_pair in judgements.items()
        for judgement in of_pair
        if judgement.with_bos is not None
    ]
    caption = "R² vw with and without the BOS rows, whose activations are nearly the same in every sequence."
    return Table("What BOS does", ["L", "k", "predictor", "without BOS", "with BOS"], rows, caption) if rows else None


def residual_figures(judgements: Judgements) -> list[NamedChart]:
    """Heat maps of R2 and skill, bars beside the baselines, R2 of single dimensions, and the effect of BOS."""
    operators = [
        (pair, next(item for item in of_pair if item.predictor == OPERATOR)) for pair, of_pair in judgements.items()
    ]
    cells = [
        {**_place(pair), **_fields("r2", item.metrics.r2_uniform), **_fields("skill", item.skill)}
        for pair, item in operators
    ]
    bars = [
        {**_place(pair), "predictor": item.predictor, **_fields("r2", item.metrics.r2_variance_weighted)}
        for pair, of_pair in judgements.items()
        for item in of_pair
    ]
    quantiles = [
        {**_place(pair), **{f"q{round(100 * q):02d}": e.value for q, e in item.metrics.r2_quantiles.items()}}
        for pair, item in operators
    ]
    figures = [
        NamedChart(
            "r2", "R² over (L, k)", pair_heatmap(cells, "r2", "R² of the operators on test sequences", label="R²")
        ),
        NamedChart(
            "skill",
            "Skill over (L, k)",
            pair_heatmap(cells, "skill", "Skill against the identity", label="skill", diverging=True),
            "1 - SSE / SSE of predicting y = x: 0 is no better than the skip connection alone.",
        ),
        NamedChart("baselines", "Operators beside their baselines", baseline_bars(bars, label="R² vw")),
        NamedChart("dimensions", "R² of single dimensions", dimension_quantiles(quantiles)),
    ]
    bos = [
        {**_place(pair), "rows": label, **_fields("r2", metrics.r2_variance_weighted)}
        for pair, of_pair in judgements.items()
        for item in of_pair
        if item.predictor == IDENTITY and item.with_bos is not None
        for label, metrics in (("without BOS", item.metrics), ("with BOS", item.with_bos))
    ]
    if bos:
        title = "R² vw of the identity, with and without the BOS rows"
        figures.append(NamedChart("bos", "What BOS does", bos_effect(bos, title, label="R² vw")))
    return figures


def operator_metrics(judgements: Judgements) -> dict[str, float]:
    """R2 and skill of every operator, by name, for experiment trackers."""
    return {
        f"{pair}/{name}": estimate.value
        for pair, of_pair in judgements.items()
        for item in of_pair
        if item.predictor == OPERATOR
        for name, estimate in (("r2", item.metrics.r2_uniform), ("skill", item.skill))
    }


def residual_records(judgements: Judgements) -> list[dict[str, Any]]:
    """One flat record per pair and predictor, with every number and its interval: what the parquet and JSON hold."""
    records = []
    for pair, of_pair in judgements.items():
        for judgement in of_pair:
            record = {"L": pair.L, "k": pair.k, "predictor": judgement.predictor}
            record |= _metric_fields("", judgement.metrics) | _fields("skill", judgement.skill)
            if judgement.with_bos is not None:
                record |= _metric_fields("with_bos_", judgement.with_bos)
            records.append(record)
    return records


def _place(pair: LayerPair) -> dict[str, int]:
    return {"layer": pair.L, "leap": pair.k}


def _fields(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _metric_fields(prefix: str, metrics: ResidualMetrics) -> dict[str, float]:
    fields: dict[str, float] = {f"{prefix}n_rows": metrics.n_rows}
    for name in ("r2_uniform", "r2_variance_weighted", "mse", "cosine"):
        fields |= _fields(f"{prefix}{name}", getattr(metrics, name))
    for quantile, estimate in metrics.r2_quantiles.items():
        fields |= _fields(f"{prefix}r2_q{round(100 * quantile):02d}", estimate)
    return fields
