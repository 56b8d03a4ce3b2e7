"""What causal_eval.py shows of edits of SAE features: is a feature transported or synthesised, causally?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from src.causal.evaluate import FEATURE_REFERENCES, CausalEvaluation, TrialResult
from src.report.artifact_report import NamedChart
from src.report.by_offset import offset_text, pair_cells, pair_columns
from src.report.causal_records import together
from src.report.evaluation import interval
from src.report.figures.causal_features import feature_changes, feature_shares
from src.report.records import estimate_fields
from src.report.tables import Cell, Table
from src.transport.bootstrap import Estimate
from src.transport.pairs import LayerPair

STRONGEST = 20  # rows on the terminal
_DRAWN, _PANELS = 12, 6
_ABLATION, _MEAN = FEATURE_REFERENCES


def of_features(evaluation: CausalEvaluation) -> CausalEvaluation:
    """The trials that edit features."""
    return replace(evaluation, results=[it for it in evaluation.results if it.trial.features])


def of_whole_activations(evaluation: CausalEvaluation) -> CausalEvaluation:
    """The trials that edit whole activations."""
    return replace(evaluation, results=[it for it in evaluation.results if not it.trial.features])


@dataclass(frozen=True, eq=False)
class FeatureResults:
    """The results of one feature (or of several that are edited together) at one pair of layers, by intervention."""

    pair: LayerPair
    features: str
    results: Mapping[str, TrialResult]

    @cached_property
    def firings(self) -> int:
        """At how many of the tokens that may be edited it fires; of transport alone, how many are edited."""
        counted = [self.results.get(name) for name in (_ABLATION, "random_features")]
        known = [result for result in (*counted, *self.results.values()) if result is not None]
        return known[0].proof.tokens

    def per_firing(self, name: str) -> Estimate | None:
        """Change of the NLL of the whole text over the number of firings."""
        if name not in self.results:
            return None
        summary = self.results[name].summary
        each = summary.n_predictions / max(self.firings, 1)
        change = summary.nll_change
        return Estimate(change.value * each, change.low * each, change.high * each)

    def share(self, name: str, reference: str = _ABLATION) -> Estimate | None:
        """The recovered share, where the reference does harm beyond chance."""
        harm = self.results.get(reference)
        if name not in self.results or harm is None or not harm.summary.nll_change.low > 0:
            return None
        return self.results[name].recovered.get(reference)

    @property
    def harm(self) -> float:
        """By which features are ranked: what ablation costs the text; where there is none, the first intervention."""
        first = self.results.get(_ABLATION) or next(iter(self.results.values()))
        return first.summary.nll_change.value


def feature_results(evaluation: CausalEvaluation) -> list[FeatureResults]:
    """The results of each pair and feature, all sets of positions pooled, those whose ablation costs most first."""
    grouped: dict[tuple[LayerPair, str], dict[str, TrialResult]] = {}
    for result in together(of_features(evaluation)):
        name = result.trial.label.removesuffix(f" {result.trial.features}")
        grouped.setdefault((result.trial.pair, result.trial.features), {})[name] = result
    found = [FeatureResults(*key, results) for key, results in grouped.items()]
    return sorted(found, key=lambda each: each.harm, reverse=True)


def feature_table(evaluation: CausalEvaluation, limit: int | None = None) -> Table:
    """One row per pair and feature. limit: only so many, whose ablation costs most."""
    found = feature_results(evaluation)
    pairs, names = list(dict.fromkeys(each.pair for each in found)), _names(found)
    judged = [name for name in names if name.startswith("transport")]
    references = [_ABLATION, *([_MEAN] if _MEAN in names else [])]
    rows: list[list[Cell]] = []
    for each in found[:limit]:
        row: list[Cell] = [*pair_cells(each.pair, pairs), each.features, each.firings]
        for name in names:
            change = each.per_firing(name)
            in_full = name == _ABLATION or limit is None
            row.append(None if change is None else interval(change) if in_full else change.value)
        for name in judged:
            for reference in references:
                share = each.share(name, reference)
                row.append(None if share is None else interval(share))
        rows.append(row)
    of = {name: f"{name.removeprefix('transport_features').strip()} " if len(judged) > 1 else "" for name in judged}
    columns = [*pair_columns(pairs), "feature", "firings", *(_short(name) for name in names)]
    words = {_ABLATION: "recovered", _MEAN: "vs mean"}
    columns += [f"{of[name]}{words[reference]}" for name in judged for reference in references]
    cut = f" The {limit} of {len(found):,} whose ablation costs most." if limit and len(found) > limit else ""
    meanings = (text for made, text in _MEANINGS.items() if any(name.startswith(made) for name in names))
    caption = (
        f"Features of the SAE at layer L + k.{cut} Change of the NLL of the text in nats per firing: "
        f"{'; '.join(meanings)}. recovered: "
        "share of the ablation's cost that the transported latent wins back: 1 transported, 0 synthesised; vs mean: of "
        "the cost of z at its mean, so above 0 only where the operator tells tokens apart. Left out where that cost "
        "can't be told from 0. 95 % intervals from a paired bootstrap over documents."
    )
    return Table("What edits of features do to predictions", columns, rows, caption)


_MEANINGS = {
    "ablate_features": "ablated (z = 0)",
    "transport_features": "transported (z of the operator's prediction from layer L in its place, also where it fires "
    "there alone)",
    "mean_features": "mean (z = its mean, everywhere)",
    "random_features": "random (as many other features that fire at the same tokens are 0)",
}


def _names(found: Sequence[FeatureResults]) -> list[str]:
    """The interventions, ablation first."""
    names = list(dict.fromkeys(name for each in found for name in each.results))
    return sorted(names, key=lambda name: name != _ABLATION)


def _short(name: str) -> str:
    kind, _, operator = name.partition(" ")
    words = {"ablate": "ablated", "transport": "transported"}
    kind = kind.removesuffix("_features")
    return f"{words.get(kind, kind)} {operator}".strip()


def feature_figures(evaluation: CausalEvaluation) -> list[NamedChart]:
    """Costs of the strongest features under each intervention, and recovered shares."""
    found = feature_results(evaluation)
    pairs = sorted(dict.fromkeys(each.pair for each in found))[:_PANELS]
    drawn = [each for pair in pairs for each in [it for it in found if it.pair == pair][:_DRAWN]]
    place = {each: {"pair": _pair_text(each.pair), "feature": each.features} for each in drawn}
    names = _names(found)
    changes = [
        {**place[each], "kind": _short(name), **estimate_fields("change", change)}
        for each in drawn
        for name in names
        if (change := each.per_firing(name)) is not None
    ]
    shares = [
        {**place[each], "kind": _short(name), **estimate_fields("share", share)}
        for each in drawn
        for name in names
        if name.startswith("transport") and (share := each.share(name)) is not None
    ]
    more = f" The {_DRAWN} features of each pair whose ablation costs most; lines are 95 % intervals over documents."
    figures = []
    if changes:
        text = "Change of the NLL of the text per firing of the feature."
        figures.append(NamedChart("feature_changes", "Edits of features", feature_changes(changes), text + more))
    if shares:
        text = "Left out where the cost of the ablation can't be told from 0."
        chart = feature_shares(shares)
        figures.append(NamedChart("feature_shares", "Share recovered by transported latents", chart, text + more))
    return figures


def _pair_text(pair: LayerPair) -> str:
    return f"L = {pair.L}, k = {pair.k}{f', {offset_text(pair.offset)}' if pair.offset else ''}"
