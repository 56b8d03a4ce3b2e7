"""What causal_eval.py shows and writes: what each intervention does to the model's predictions, with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from src.causal.evaluate import FEATURE_REFERENCES, REFERENCES, CausalEvaluation, TrialResult
from src.causal.positions import POOLED
from src.report.artifact_report import NamedChart
from src.report.by_offset import figures_by_offset, offset_text, pair_cells, pair_columns
from src.report.causal_features import STRONGEST, feature_figures, feature_table, of_features, of_whole_activations
from src.report.causal_records import bins, together
from src.report.evaluation import interval
from src.report.figures.causal import NO_OPERATOR, change_bars, change_lines
from src.report.figures.heatmap import pair_heatmap
from src.report.findings import span
from src.report.records import estimate_fields
from src.report.tables import Cell, Table
from src.transport.bootstrap import Estimate
from src.transport.pairs import LayerPair

# longer tables are left to the report page
LONGEST_SHOWN = 40
_MOST_PANELS = 16
_EVERY_EDIT = "Every condition of features"
# nats per affected prediction: where an ablation costs less there is nothing to recover a share of
_TRIFLE = 0.01


def result_tables(evaluation: CausalEvaluation, what: str) -> tuple[list[Table], list[Table]]:
    """The tables for the terminal, and those for the report page alone. what: as in `ridge at resid_post`."""
    evaluation, proof = _without_trifles(evaluation), proof_table(evaluation)
    whole, edited = of_whole_activations(evaluation), of_features(evaluation)
    shown, details = _whole_tables(whole, what) if whole.results else ([], [])
    if edited.results:
        shown.append(feature_table(edited, STRONGEST))
        every = condition_table(edited, what, full=True)
        details += [replace(feature_table(edited), title="Every feature"), replace(every, title=_EVERY_EDIT)]
    return shown, [*details, proof]


def _whole_tables(evaluation: CausalEvaluation, what: str) -> tuple[list[Table], list[Table]]:
    """Those of edits of whole activations, without their proof."""
    every = condition_table(evaluation, what, full=True)
    pairs = list(dict.fromkeys(result.trial.pair for result in evaluation.results))
    if len(pairs) > 1:
        return [pair_table(evaluation, what)], [every]
    short = condition_table(evaluation, f"{what}, L = {pairs[0].L}, k = {pairs[0].k}", full=False)
    return ([short], [every]) if len(short.rows) <= LONGEST_SHOWN else ([_pooled(short)], [every])


def condition_table(evaluation: CausalEvaluation, what: str, *, full: bool) -> Table:
    """One row per trial. full: every number with its interval, and the number of sequences and predictions."""
    pairs = list(dict.fromkeys(result.trial.pair for result in evaluation.results))
    several = len(pairs) > 1
    known = (*REFERENCES, *FEATURE_REFERENCES)
    references = [name for name in known if any(name in result.recovered for result in evaluation.results)]
    rows: list[list[Cell]] = []
    for result in evaluation.results:
        summary = result.summary
        row: list[Cell] = pair_cells(result.trial.pair, pairs) if full or several else []
        row += [result.trial.label, result.trial.positions, summary.n_sequences]
        row += [summary.n_affected, _shown(summary.nll_change, full)] if full else [summary.nll_change.value]
        row += [interval(summary.nll_change_affected)]
        row += [_shown(summary.kl_affected, full), _shown(summary.agreement_affected, full)]
        row += [
            _shown(result.recovered[name], full or name == references[0]) if name in result.recovered else None
            for name in references
        ]
        rows.append(row)
    columns = pair_columns(pairs) if full or several else []
    columns += ["intervention", "positions", "sequences", *(["predictions"] if full else [])]
    columns += ["Δ all", "Δ affected", "KL", "agreement", *(f"vs {name}" for name in references)]
    title = "Every condition" if full else "What interventions do to predictions"
    return Table(title, columns, rows, _caption(evaluation, what))


def _shown(estimate: Estimate, full: bool) -> Cell:
    return interval(estimate) if full else estimate.value


def _pooled(table: Table) -> Table:
    place = list(table.columns).index("positions")
    rows = [row for row in table.rows if row[place] == POOLED]
    return Table(table.title, table.columns, rows or table.rows, table.caption)


def _caption(evaluation: CausalEvaluation, what: str) -> str:
    return (
        f"{what}. Clean log-perplexity {evaluation.clean_nll.value:.4f} [{evaluation.clean_nll.low:.4f}, "
        f"{evaluation.clean_nll.high:.4f}] nats per token, {evaluation.n_sequences:,} sequences. Δ: change of log-"
        "perplexity; all: over all predictions; affected: over those that the edit can change, from the first edited "
        "token on, as are KL from the clean distribution and top-1 agreement with it. vs zero, vs mean: recovered "
        "share (Δ ablation - Δ) / Δ ablation: 1 as the clean run, 0 as the ablation of the same tokens, left out where "
        f"that costs less than {_TRIFLE:g} nats. 95 % intervals from a paired bootstrap over documents."
    )


def pair_table(evaluation: CausalEvaluation, what: str) -> Table:
    """One row per pair: the change of each intervention, all positions pooled, and what transport recovers."""
    results = {(result.trial.pair, result.trial.label): result for result in together(evaluation)}
    labels = list(dict.fromkeys(label for _, label in results))
    judged = [label for label in labels if label.startswith("transport")] or [
        label for label in labels if label == "identity"
    ]
    references = [name for name in REFERENCES if any(name in result.recovered for result in results.values())]
    rows: list[list[Cell]] = []
    pairs = list(dict.fromkeys(pair for pair, _ in results))
    for pair in pairs:
        row = pair_cells(pair, pairs)
        for label in labels:
            result = results.get((pair, label))
            change = None if result is None else result.summary.nll_change_affected
            row.append(None if change is None else interval(change) if label in judged else change.value)
        for label in judged:
            recovered: Mapping[str, Estimate] = results[pair, label].recovered if (pair, label) in results else {}
            # of several, the intervals are left to the table of every condition: the terminal has no room
            row += [
                _shown(recovered[name], full=len(judged) == 1) if name in recovered else None for name in references
            ]
        rows.append(row)
    of = {label: f"{label}, " if len(judged) > 1 else "" for label in judged}
    columns = [*pair_columns(pairs), *labels, *(f"{of[label]}vs {name}" for label in judged for name in references)]
    all_sets = ", all sets of positions pooled" if any(it.trial.positions == POOLED for it in results.values()) else ""
    caption = f"Change of log-perplexity over the affected predictions{all_sets}. {_caption(evaluation, what)}"
    if judged and references:
        caption += f" Recovered shares are those of {' and '.join(judged)}."
    return Table("What interventions do to predictions", columns, rows, caption)


def proof_table(evaluation: CausalEvaluation) -> Table:
    """One row per trial: evidence that its edits happened, and changed nothing before them."""
    pairs = list(dict.fromkeys(result.trial.pair for result in evaluation.results))
    rows: list[list[Cell]] = [
        [
            *pair_cells(result.trial.pair, pairs),
            result.trial.label,
            result.trial.positions,
            result.proof.tokens,
            result.proof.max_deviation,
            result.proof.max_change_before,
        ]
        for result in evaluation.results
    ]
    caption = (
        "deviation: largest difference between what was written and what was then captured at the hook point; 0: the "
        "edit happened. change before: largest relative change of the last block's output before the first edited "
        "token; rounding alone."
    )
    columns = [*pair_columns(pairs), "intervention", "positions", "tokens edited", "deviation", "change before"]
    return Table("Proof of the edits", columns, rows, caption)


def result_text(
    evaluation: CausalEvaluation,
    methods: str,
    hook: str,
    dataset: str,
    n_directions: str | None,
    n_features: int | None = None,
) -> str:
    """What was done. methods: of the operators, if any. n_directions: None = whole activations were replaced.

    n_features: of SAEs that were edited, if any.
    """
    what = (
        f"Operators ({methods}) and what they are compared with" if methods else "Interventions that need no operator"
    )
    where = hook if n_directions is None else f"the component of {hook} along {n_directions} directions"
    if n_features is not None:
        features = f"{n_features:,} features of SAEs of {hook}"
        is_alone = all(result.trial.features for result in evaluation.results)
        where = features if is_alone else f"{where}, and of {features}"
    done = (
        f"{what}, written in place of {where}, in {evaluation.n_sequences:,} sequences of {dataset} that nothing was "
        f"fitted on. Every edit happened: at all {evaluation.tokens_edited:,} edited tokens, what was captured at the "
        "hook point is what was written."
    )
    return f"{_finding(evaluation)}{done}"


def _finding(evaluation: CausalEvaluation) -> str:
    """What the predictions of operators cost, and what they win back, in a sentence; empty if none was written."""
    whole = together(of_whole_activations(evaluation))
    judged = [result for result in whole if result.trial.intervention == "transport"]
    several = len({result.trial.operator for result in judged}) > 1
    transported = {f"{result.trial.pair}{f', {result.trial.operator}' if several else ''}": result for result in judged}
    if not transported:
        return ""
    change = span({name: result.summary.nll_change_affected.value for name, result in transported.items()})
    found = f"Operators' predictions in place of activations cost {change} nats per affected prediction"
    for reference in ("mean", "zero"):
        if all(reference in each.recovered for each in transported.values()):
            share = span({name: each.recovered[reference].value for name, each in transported.items()})
            return f"{found}; they win back {share} of {reference} ablation's cost. "
    return f"{found}. "


def causal_figures(evaluation: CausalEvaluation) -> list[NamedChart]:
    """Change by condition, change by distance from the edit, recovered shares over (L, k); those of features."""
    whole, edited = of_whole_activations(evaluation), of_features(evaluation)
    return [*(_whole_figures(whole) if whole.results else []), *(feature_figures(edited) if edited.results else [])]


def _whole_figures(evaluation: CausalEvaluation) -> list[NamedChart]:
    pooled = together(_without_trifles(evaluation))
    pairs = list(dict.fromkeys(result.trial.pair for result in pooled))
    drawn = set(pairs[:_MOST_PANELS])
    left_out = (
        f" The first {len(drawn)} of {len(pairs)} pairs; the others are in the tables."
        if len(pairs) > len(drawn)
        else ""
    )
    bars = [
        {
            **_place(result),
            "positions": result.trial.positions,
            **estimate_fields("change", result.summary.nll_change_affected),
        }
        for result in evaluation.results
        if result.trial.pair in drawn
    ]
    lines = [
        {**_place(result), "from": first, "to": last, **estimate_fields("change", estimate)}
        for result in pooled
        if result.trial.pair in drawn
        for (first, last), estimate in zip(bins(evaluation.distances), result.by_distance, strict=True)
        if math.isfinite(estimate.value)
    ]
    figures = [
        NamedChart(
            "change",
            "Change of log-perplexity",
            change_bars(bars),
            "Over the predictions that an edit can change; lines are 95 % intervals over documents." + left_out,
        ),
    ]
    if len({line["from"] for line in lines}) > 1:
        caption = (
            "0: the prediction made at the first edited token itself; where several tokens are edited, the later ones "
            "show as rises. Bands are 95 % intervals over documents."
        )
        figures.append(
            NamedChart("distance", "Change by distance from the edit", change_lines(lines), caption + left_out)
        )
    return [*figures, *(figures_by_offset(pairs, lambda chosen: _heatmaps(pooled, chosen)) if len(pairs) > 1 else [])]


def _without_trifles(evaluation: CausalEvaluation) -> CausalEvaluation:
    """The evaluation without the shares of ablations that do next to no harm, which tables and figures leave empty."""
    harm = {
        (result.trial.pair, result.trial.positions, result.trial.intervention): result.summary.nll_change_affected.value
        for result in evaluation.results
    }

    def worth_showing(result: TrialResult) -> TrialResult:
        place = result.trial.pair, result.trial.positions
        if result.trial.features:
            return result  # feature by feature, edits do little
        shares = {name: share for name, share in result.recovered.items() if harm[*place, name] >= _TRIFLE}
        return replace(result, recovered=shares)

    return replace(evaluation, results=[worth_showing(result) for result in evaluation.results])


def _heatmaps(pooled: Sequence[TrialResult], pairs: Sequence[LayerPair]) -> list[NamedChart]:
    """Recovered share over (L, k) of every transport (or of the identity), against each reference."""
    of_pairs = [result for result in pooled if result.trial.pair in pairs]
    judged = [result for result in of_pairs if result.trial.intervention == "transport"]
    judged = judged or [result for result in of_pairs if result.trial.intervention == "identity"]
    figures = []
    for label in dict.fromkeys(result.trial.label for result in judged):
        of_label = [result for result in judged if result.trial.label == label]
        for reference in REFERENCES:
            cells = [
                {
                    "layer": result.trial.pair.L,
                    "leap": result.trial.pair.k,
                    **estimate_fields("share", result.recovered[reference]),
                }
                for result in of_label
                if reference in result.recovered
            ]
            if cells:
                title = f"Share recovered by {label}, against {reference} ablation"
                stem = "_".join("".join(c if c.isalnum() else " " for c in f"recovered {label} vs {reference}").split())
                chart = NamedChart(
                    stem,
                    title,
                    pair_heatmap(cells, "share", title, label="share", diverging=True),
                    f"1: predictions as if nothing had been edited; 0: as bad as {reference} ablation; below: worse. "
                    f"Empty where that ablation costs less than {_TRIFLE:g} nats: nothing is there to recover.",
                )
                figures.append(chart)
    return figures


def _place(result: TrialResult) -> dict[str, Any]:
    pair = result.trial.pair
    name = f"L = {pair.L}, k = {pair.k}{f', {offset_text(pair.offset)}' if pair.offset else ''}"
    trial = result.trial
    return {
        "pair": name,
        "intervention": trial.label,
        "kind": trial.intervention,
        "operator": trial.operator or NO_OPERATOR,
    }
