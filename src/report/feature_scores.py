"""What score_features.py shows: the best features of each layer, a summary by layer, and figures."""

import math
from collections.abc import Sequence

import torch

from src.features.clustered import FEWEST_DOCUMENTS, INTERVAL
from src.features.predicting.intervals import median
from src.features.scores.layer_scores import ScoredLayer
from src.features.scores.scoring import TERMS, Preset
from src.report.artifact_report import NamedChart
from src.report.feature_records import Word
from src.report.figures.features import attributed_and_measured, rate_and_coherence, score_histograms
from src.report.tables import Cell, Table

_MOST_ROWS = 36  # on the terminal
LISTED = 50  # of each layer on the report page
_MOST_POINTS = 3000  # in a figure
_BINS = 30
_WORDS = 4


def layer_table(layers: Sequence[ScoredLayer]) -> Table:
    """One row per layer: the SAE in this text, and what became of its features."""
    rows: list[list[Cell]] = []
    for scored in layers:
        firing, metrics = scored.metrics.firing, scored.metrics
        live = ~firing.is_dead
        row: list[Cell] = [scored.layer, str(scored.pairing.point), len(live), int(firing.is_dead.sum())]
        row += [scored.pairing.fvu.value, float(firing.rate.value.sum())]
        row += [float(median(firing.rate.value[live])) if live.any() else None]
        row += [_median(metrics.coherence.coherence.value), _median(metrics.redundancy.correlation.value)]
        row += [len(scored.candidates) or None, scored.agreement if math.isfinite(scored.agreement) else None]
        row += [len(scored.scores.selected)]
        rows.append(row)
    columns = ["layer", "hook", "features", "dead", "FVU", "L0", "median rate", "coherence", "|r|"]
    columns += ["measured", "rank agreement", "selected"]
    caption = (
        "dead: fires at no token of this text. coherence, |r|: medians over live features. rank agreement: Spearman's "
        "correlation of first-order and measured effects over the features that were measured, in the same documents."
    )
    return Table("Layers", columns, rows, caption)


def feature_table(layers: Sequence[ScoredLayer], word: Word, per_layer: int | None = None) -> Table:
    """The best features of each layer with their metrics, the tokens at which they fire, and those they promote.

    per_layer: None = as many as a terminal holds.
    """
    shown = max(1, min(8, _MOST_ROWS // len(layers))) if per_layer is None else per_layer
    rows: list[list[Cell]] = []
    for scored in layers:
        metrics = scored.metrics
        effects = metrics.attribution if scored.measured is None else scored.measured
        for feature in scored.scores.selected[:shown].tolist():
            row: list[Cell] = [scored.layer, feature, float(scored.scores.score[feature])]
            row += [float(metrics.coherence.coherence.value[feature]), float(metrics.focus.peak[feature])]
            if effects is not None:
                row += [_effect(float(effects.per_firing.value[feature]), float(effects.per_firing.error[feature]))]
            row += [float(metrics.redundancy.correlation.value[feature]), float(metrics.firing.rate.value[feature])]
            row += [_firing_text(scored, feature, word)]
            row += [" ".join(word(token) for token in metrics.focus.promoted[feature, :_WORDS].tolist())]
            rows.append(row)
    measured_by = {scored.measured_by for scored in layers if scored.measured is not None}
    known = any(scored.metrics.attribution is not None for scored in layers)
    columns = ["layer", "feature", "score", "coherence", "focus", *(["effect"] if known else []), "|r|", "rate"]
    columns += ["fires at", "promotes"]
    how = {"ablation": "measured by ablation", "integrated": "integrated gradients"}
    kind = "; ".join(how[name] for name in sorted(measured_by))
    kind = f"{kind}; – = was no candidate" if kind else "first-order attribution"
    effect = f" effect: rise of the NLL, in nats, for each firing that is ablated ({kind})." if known else ""
    caption = (
        f"The best {shown} of each layer's selected features. coherence: 1 = fires at one token, 0 = at tokens as "
        f"varied as the text's. focus: peak of its logits in standard deviations.{effect} |r|: the highest correlation "
        "with another feature. fires at: shares of its activation. Brackets: 95 % intervals over documents, "
        f"where it fires in {FEWEST_DOCUMENTS} of them."
    )
    return Table("The best features", columns, rows, caption)


def scores_text(layers: Sequence[ScoredLayer], dataset: str, preset: Preset) -> str:
    """What was done."""
    first = layers[0]
    selected = sum(len(scored.scores.selected) for scored in layers)
    return (
        f"{sum(len(scored.scores.score) for scored in layers):,} features of {len(layers)} layers, scored over "
        f"{first.n_tokens:,} counted tokens of {first.n_documents:,} different documents of {dataset}; the best "
        f"{selected:,} that fire are selected. Score = {_formula(preset)}.\n\nScores describe features in this text: "
        "one that is dead here may fire elsewhere."
    )


def _formula(preset: Preset) -> str:
    weights = [(getattr(preset.final, name), name) for name in TERMS if getattr(preset.final, name)]
    terms = " ".join(f"{'+' if weight > 0 else '-'} {abs(weight):g} {name}" for weight, name in weights)
    scale = "scaled to the range of the layer" if preset.normalisation == "minmax" else "as ranks within the layer"
    missing = "unknown ones count 0" if preset.missing == "zero" else "over the weights of the terms that are known"
    return f"{terms.removeprefix('+ ')}, each {scale}, {missing}"


def scores_metrics(layers: Sequence[ScoredLayer]) -> dict[str, float]:
    """Numbers for the tracker."""
    found: dict[str, float] = {}
    for scored in layers:
        firing = scored.metrics.firing
        found |= {
            f"layer_{scored.layer}/dead_share": float(firing.is_dead.double().mean()),
            f"layer_{scored.layer}/l0": float(firing.rate.value.sum()),
            f"layer_{scored.layer}/fvu": scored.pairing.fvu.value,
            f"layer_{scored.layer}/rank_agreement": scored.agreement,
        }
    return found


def scores_figures(layers: Sequence[ScoredLayer], word: Word) -> list[NamedChart]:
    """Rate against coherence, distributions of scores, and attribution against ablation."""
    most = max(100, _MOST_POINTS // len(layers))
    points = [
        {
            "layer": scored.layer,
            "feature": feature,
            "rate": float(scored.metrics.firing.rate.value[feature]),
            "coherence": float(scored.metrics.coherence.coherence.value[feature]),
            "score": float(scored.scores.score[feature]),
            "tokens": _firing_text(scored, feature, word),
        }
        for scored in layers
        for feature in _some_live(scored, most)
    ]
    left_out = any(int((~scored.metrics.firing.is_dead).sum()) > most for scored in layers)
    caption = "Each point is a feature that fires in this text."
    caption += f" Of each layer {most:,} are drawn, evenly spread over their numbers." if left_out else ""
    figures = [
        NamedChart("rate_coherence", "Rate, coherence and score", rate_and_coherence(points), caption),
        NamedChart("scores", "Distribution of scores", score_histograms(_histograms(layers)), "Features that fire."),
    ]
    candidates = [record for scored in layers for record in _candidate_records(scored)]
    if candidates:
        how = next(scored.measured_by for scored in layers if scored.measured is not None)
        caption = f"Candidates, per firing; measured by {how}; lines are 95 % intervals over documents."
        chart = attributed_and_measured(candidates)
        figures.append(NamedChart("attribution", "First-order effects against measured ones", chart, caption))
    return figures


def _some_live(scored: ScoredLayer, most: int) -> list[int]:
    live = (~scored.metrics.firing.is_dead).nonzero()[:, 0]
    return live[:: -(-len(live) // most)].tolist() if len(live) else []


def _histograms(layers: Sequence[ScoredLayer]) -> list[dict[str, float | int | str]]:
    records: list[dict[str, float | int | str]] = []
    for scored in layers:
        scores = scored.scores.score[~scored.metrics.firing.is_dead]
        scores = scores[scores.isfinite()]
        if not len(scores):
            continue
        low, high = float(scores.min()), float(scores.max())
        edges = torch.linspace(low, high if high > low else low + 1, _BINS + 1, dtype=torch.float64)
        all_counts, _ = torch.histogram(scores.double(), edges)
        selected, _ = torch.histogram(scored.scores.score[scored.scores.selected].double(), edges)
        for kind, counts in (("selected", selected), ("others", all_counts - selected)):
            records += [
                {"layer": scored.layer, "from": start, "to": stop, "features": int(count), "kind": kind}
                for start, stop, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
                if count
            ]
    return records


def _candidate_records(scored: ScoredLayer) -> list[dict[str, float | int]]:
    if scored.measured is None or scored.metrics.attribution is None:
        return []
    measured, attributed = scored.measured.per_firing, scored.metrics.attribution.per_firing
    return [
        {
            "layer": scored.layer,
            "feature": feature,
            "attribution": float(attributed.value[feature]),
            "measured": float(measured.value[feature]),
            "measured_low": float(measured.low[feature]),
            "measured_high": float(measured.high[feature]),
        }
        for feature in scored.candidates.tolist()
        if math.isfinite(float(measured.value[feature]))
    ]


def _firing_text(scored: ScoredLayer, feature: int, word: Word) -> str:
    coherence = scored.metrics.coherence
    pairs = zip(coherence.top_tokens[feature, :_WORDS].tolist(), coherence.top_shares[feature].tolist(), strict=False)
    return " ".join(f"{word(token)} {share:.0%}" for token, share in pairs if token >= 0)


def _effect(value: float, error: float) -> Cell:
    if not math.isfinite(value):
        return None
    if not math.isfinite(error):
        return value
    return {"value": value, "low": value - INTERVAL * error, "high": value + INTERVAL * error}


def _median(values: torch.Tensor) -> float | None:
    known = values[~values.isnan()]
    return float(median(known)) if len(known) else None
