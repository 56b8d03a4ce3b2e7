"""What eval.py shows and writes: operators beside their baselines, with intervals."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.by_offset import figures_by_offset, pair_cells, pair_columns
from src.report.figures.heatmap import pair_heatmap
from src.report.figures.offset_curves import offset_curves
from src.report.figures.transport import baseline_bars, bos_effect, dimension_quantiles
from src.report.findings import span
from src.report.records import estimate_fields
from src.report.tables import Interval, Table
from src.transport.bootstrap import Estimate
from src.transport.evaluate import IDENTITY, MEAN, OPERATOR, SHIFT, Judgement, PairEvaluation
from src.transport.metrics import ResidualMetrics
from src.transport.pairs import LayerPair

Evaluations = Mapping[LayerPair, PairEvaluation]

_WEIGHTED = "variance-weighted R²"


def interval(estimate: Estimate) -> Interval:
    """An estimate as a table cell."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def summary_table(evaluations: Evaluations) -> Table:
    """One row per pair: the operator with intervals, and the R2 of each baseline beside it."""
    rows, pairs = [], list(evaluations)
    for pair, evaluation in evaluations.items():
        operator = evaluation.predictors[OPERATOR]
        rows.append(
            [
                *pair_cells(pair, pairs),
                interval(operator.metrics.r2_uniform),
                interval(operator.skill),
                operator.metrics.cosine.value,
                operator.metrics.r2_variance_weighted.value,
                *(evaluation.predictors[name].metrics.r2_variance_weighted.value for name in (SHIFT, IDENTITY, MEAN)),
            ]
        )
    columns = [*pair_columns(pairs), "R²", "skill", "cosine", "R² vw", "shift vw", "identity vw", "mean vw"]
    return Table("Transport operators on held-out documents", columns, rows, _caption(evaluations))


def _caption(evaluations: Evaluations) -> str:
    n_rows = {judgement.metrics.n_rows for evaluation in evaluations.values() for judgement in _judged(evaluation)}
    return (
        f"{fitted_as(evaluations)}; {' or '.join(f'{count:,}' for count in sorted(n_rows))} counted test tokens; "
        "tokens left out of statistics (BOS, special, ...) are not scored: see the activations' table. 95 % intervals "
        "from a bootstrap over documents. vw: dimensions weighted by variance. skill: 1 - SSE / SSE of the identity."
        f"{_offset_note(evaluations)}"
    )


def _offset_note(evaluations: Evaluations) -> str:
    if not any(pair.offset for pair in evaluations):
        return ""
    return (
        " offset: the target is so many tokens after the source; every offset that was fitted is scored on the same "
        "tokens, those that have a counted one at each of them."
    )


def fitted_as(evaluations: Evaluations) -> str:
    """Method and hook of the operators, as in `ridge at resid_post`."""
    return " and ".join(sorted({f"{each.method} at {each.hook}" for each in evaluations.values()}))


def _judged(evaluation: PairEvaluation) -> Iterable[Judgement]:
    return evaluation.predictors.values()


def residual_table(evaluations: Evaluations) -> Table:
    """One row per pair and predictor."""
    pairs = list(evaluations)
    rows = [
        [
            *pair_cells(pair, pairs),
            name,
            interval(judgement.metrics.r2_uniform),
            interval(judgement.metrics.r2_variance_weighted),
            interval(judgement.skill),
            interval(judgement.metrics.mse),
            interval(judgement.metrics.cosine),
        ]
        for pair, name, judgement in _each(evaluations)
    ]
    columns = [*pair_columns(pairs), "predictor", "R²", "R² vw", "skill", "MSE", "cosine"]
    return Table("Every predictor", columns, rows, _caption(evaluations))


def _each(evaluations: Evaluations) -> Iterator[tuple[LayerPair, str, Judgement]]:
    for pair, evaluation in evaluations.items():
        for name, judgement in evaluation.predictors.items():
            yield pair, name, judgement


def bos_table(evaluations: Evaluations) -> Table | None:
    """What scoring the BOS rows too does to R2; None if the store has no BOS rows."""
    pairs = list(evaluations)
    rows = [
        [
            *pair_cells(pair, pairs),
            name,
            interval(judgement.metrics.r2_variance_weighted),
            interval(judgement.with_bos.r2_variance_weighted),
        ]
        for pair, name, judgement in _each(evaluations)
        if judgement.with_bos is not None
    ]
    caption = (
        "R² vw with and without the first token of each sequence (BOS, [CLS], or whatever stands there), whose "
        "activations are nearly the same in every sequence."
    )
    columns = [*pair_columns(pairs), "predictor", "without BOS", "with BOS"]
    return Table("What BOS does", columns, rows, caption) if rows else None


def residual_figures(evaluations: Evaluations) -> list[NamedChart]:
    """Heat maps of R2 and skill, bars beside the baselines, R2 of single dimensions, and the effect of BOS.

    All of these once for each position offset, and R2 against the offset where there are several.
    """
    pairs = list(evaluations)
    figures = figures_by_offset(pairs, lambda chosen: _figures({pair: evaluations[pair] for pair in chosen}))
    if len({pair.offset for pair in pairs}) > 1:
        records = [
            {
                **_place(pair),
                "offset": pair.offset,
                **estimate_fields("r2", evaluation.predictors[OPERATOR].metrics.r2_uniform),
            }
            for pair, evaluation in evaluations.items()
        ]
        caption = "Mean over dimensions, test documents; every offset on the same tokens. Lines: 95 % intervals."
        figures.append(NamedChart("offsets", "R² against the position offset", offset_curves(records), caption))
    return figures


def _figures(evaluations: Evaluations) -> list[NamedChart]:
    operators = [(pair, evaluation.predictors[OPERATOR]) for pair, evaluation in evaluations.items()]
    cells = [
        {**_place(pair), **estimate_fields("r2", item.metrics.r2_uniform), **estimate_fields("skill", item.skill)}
        for pair, item in operators
    ]
    bars = [
        {**_place(pair), "predictor": name, **estimate_fields("r2", item.metrics.r2_variance_weighted)}
        for pair, name, item in _each(evaluations)
    ]
    quantiles = [
        {**_place(pair), **{f"q{round(100 * q):02d}": e.value for q, e in item.metrics.r2_quantiles.items()}}
        for pair, item in operators
    ]
    figures = [
        NamedChart(
            "r2",
            "R² over (L, k)",
            pair_heatmap(cells, "r2", "R² of the operators on test documents", label="R²"),
            f"Mean over dimensions, of {fitted_as(evaluations)}; below it the 95 % interval over documents.",
        ),
        NamedChart(
            "skill",
            "Skill over (L, k)",
            pair_heatmap(cells, "skill", "Skill against the identity", label="skill", diverging=True),
            "1 - SSE / SSE of predicting y = x: 0 is no better than the skip connection alone.",
        ),
        NamedChart(
            "baselines",
            "Operators beside their baselines",
            baseline_bars(bars, label=_WEIGHTED),
            "identity: y = x; identity + shift: y = x + mean(y - x); mean: y = mean(y), both means over the training "
            "tokens. Lines are 95 % intervals over documents.",
        ),
        NamedChart(
            "dimensions",
            "R² of single dimensions",
            dimension_quantiles(quantiles),
            "The operators, on test documents: an R² over all dimensions can hide some that are not predicted at all.",
        ),
    ]
    bos = [
        {**_place(pair), "rows": label, **estimate_fields("r2", metrics.r2_variance_weighted)}
        for pair, name, item in _each(evaluations)
        if name == IDENTITY and item.with_bos is not None
        for label, metrics in (("without BOS", item.metrics), ("with BOS", item.with_bos))
    ]
    if bos:
        title = "R² of the identity, with and without the BOS rows"
        caption = "Activations at BOS are nearly the same in every sequence, and large: scored too, they flatter."
        figures.append(NamedChart("bos", "What BOS does", bos_effect(bos, title, label=_WEIGHTED), caption))
    return figures


def residual_finding(evaluations: Evaluations) -> str:
    """R2 of the operators, and of how many the skill is beyond chance, in a sentence."""
    judged = {str(pair): each.predictors[OPERATOR] for pair, each in evaluations.items()}
    r2 = span({name: each.metrics.r2_uniform.value for name, each in judged.items()})
    better = sum(each.skill.low > 0 for each in judged.values())
    return (
        f"R² on test documents is {r2}; {better} of {len(judged)} operators do better than the identity (the interval "
        "of their skill lies above 0)."
    )


def operator_metrics(evaluations: Evaluations) -> dict[str, float]:
    """R2 and skill of every operator, by name, for experiment trackers."""
    return {
        f"{pair}/{name}": estimate.value
        for pair, evaluation in evaluations.items()
        for name, estimate in (
            ("r2", evaluation.predictors[OPERATOR].metrics.r2_uniform),
            ("skill", evaluation.predictors[OPERATOR].skill),
        )
    }


def residual_records(evaluations: Evaluations, artifacts: Mapping[LayerPair, str]) -> list[dict[str, Any]]:
    """One flat record per pair and predictor, with every number and its interval: what the parquet and JSON hold.

    artifacts: the name of the artifact that each operator lies in. `method` and `alpha` are those of the pair's
    operator, on the rows of its baselines too.
    """
    records = []
    for pair, name, judgement in _each(evaluations):
        evaluation = evaluations[pair]
        record = {"L": pair.L, "k": pair.k, "offset": pair.offset, "predictor": name}
        record |= {"hook": evaluation.hook, "operators": artifacts[pair]}
        record |= {"method": evaluation.method, "alpha": evaluation.alpha}
        record |= _metric_fields("", judgement.metrics) | estimate_fields("skill", judgement.skill)
        if judgement.with_bos is not None:
            record |= _metric_fields("with_bos_", judgement.with_bos)
        records.append(record)
    return records


def _place(pair: LayerPair) -> dict[str, int]:
    return {"layer": pair.L, "leap": pair.k}


def _metric_fields(prefix: str, metrics: ResidualMetrics) -> dict[str, float]:
    fields: dict[str, float] = {f"{prefix}n_rows": metrics.n_rows}
    for name in ("r2_uniform", "r2_variance_weighted", "mse", "cosine"):
        fields |= estimate_fields(f"{prefix}{name}", getattr(metrics, name))
    for quantile, estimate in metrics.r2_quantiles.items():
        fields |= estimate_fields(f"{prefix}r2_q{round(100 * quantile):02d}", estimate)
    return fields
