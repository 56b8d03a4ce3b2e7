"""What explain_features.py shows and writes besides the cards: tables, a figure, JSON and parquet."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from src.artifacts import disk_errors, write_json
from src.artifacts.files import make_folder
from src.config.explain_features import ExplainConfig
from src.features.explaining.cards import FeatureCard, LayerCards
from src.features.explaining.explanations import NeuronpediaRows, explanations_document
from src.report.artifact_report import NamedChart
from src.report.feature_cards import card_words
from src.report.figures.firing_rates import firing_rates
from src.report.records import write_records
from src.report.tables import Cell, Table

_MOST_ROWS = 36  # on the terminal
_BINS_PER_DECADE = 4
_MOST_PANELS = 30


def explanations_name(layer: int) -> str:
    """The file of a layer's explanations, as the reference names it."""
    return f"feature_explanations_{layer}.json"


def write_files(
    folder: Path,
    layers: Sequence[LayerCards],
    rows: Mapping[int, NeuronpediaRows],
    strings: Mapping[int, str],
    config: ExplainConfig,
) -> None:
    """Write feature_explanations_<layer>.json, explanations.parquet, features.parquet and .json, contexts.parquet.

    rows: Neuronpedia's, by layer; what the explainer said is put into the same form.
    """
    for layer in layers:
        found = rows.get(layer.layer) or _as_rows(layer)
        features = [card.feature for card in layer.cards]
        meta = {
            "sae_id": (config.sae_path or layer.sae).replace("{layer}", str(layer.layer)),
            "sae_layer": layer.layer,
            "feature_ids_file": config.feature_ids_file,
        }
        write_json(folder / explanations_name(layer.layer), explanations_document(found, features, meta))
    said = [
        {"layer": layer.layer, "feature": card.feature, "place": place, "text": it.text, "source": it.source}
        | {"method": it.method}
        for layer, card in _cards(layers)
        for place, it in enumerate(card.explanations)
    ]
    _write_table(folder / "explanations.parquet", said, _SAID)
    write_records(folder / "features", [_record(layer, card, strings) for layer, card in _cards(layers)])
    _write_table(folder / "contexts.parquet", list(_contexts(layers, strings)), _CONTEXTS)


_SAID = pa.schema(
    {"layer": pa.int32(), "feature": pa.int32(), "place": pa.int32()}
    | {"text": pa.string(), "source": pa.string(), "method": pa.string()}
)
_CONTEXTS = pa.schema(
    {"layer": pa.int32(), "feature": pa.int32(), "band": pa.int32(), "document": pa.int64()}
    | {"sequence": pa.int64(), "position": pa.int64(), "activation": pa.float32(), "place": pa.int32()}
    | {"token_ids": pa.list_(pa.int32()), "tokens": pa.list_(pa.string()), "activations": pa.list_(pa.float32())}
)


def _write_table(path: Path, records: list[dict[str, Any]], schema: pa.Schema) -> None:
    with disk_errors(path):
        pq.write_table(pa.Table.from_pylist(records, schema=schema), path, compression="zstd")


def _as_rows(layer: LayerCards) -> NeuronpediaRows:
    found = NeuronpediaRows()
    for card in layer.cards:
        for it in reversed(card.explanations):
            found.add(
                {"index": str(card.feature), "description": it.text, "explanationModelName": it.source}
                | {"typeName": it.method}
            )
    return found


def _cards(layers: Sequence[LayerCards]) -> Iterator[tuple[LayerCards, FeatureCard]]:
    return ((layer, card) for layer in layers for card in layer.cards)


def _record(layer: LayerCards, card: FeatureCard, strings: Mapping[int, str]) -> dict[str, Any]:
    """All numbers of a card but its contexts."""
    record: dict[str, Any] = {"layer": layer.layer, "feature": card.feature, "explanations": len(card.explanations)}
    if (activity := card.activity) is not None:
        names = ("firings", "n_tokens", "rate", "sequences", "n_sequences", "mean", "maximum", "upper")
        record |= {name: getattr(activity, name) for name in names}
        record["histogram"] = list(activity.counts)
        record |= {
            "tokens": [strings[it.token_id] for it in activity.tokens],
            **{
                f"token_{name}": [getattr(it, name) for it in activity.tokens]
                for name in ("firings", "share", "rate", "mean_activation")
            },
        }
    if card.promoted is not None:
        for side in ("promoted", "suppressed"):
            entries = getattr(card.promoted, side)
            record[side] = [strings[token] for token, _ in entries]
            record[f"{side}_effect"] = [effect for _, effect in entries]
    record |= {"neighbours": [feature for feature, _ in card.neighbours]}
    record |= {"neighbour_cosine": [cosine for _, cosine in card.neighbours]}
    return record | {f"score_{name}": value for name, value in card.scores.items()}


def _contexts(layers: Sequence[LayerCards], strings: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    for layer, card in _cards(layers):
        for context in card.activity.contexts if card.activity is not None else ():
            tokens = [strings[token] for token in context.token_ids]
            yield {"layer": layer.layer, "feature": card.feature, **vars(context), "tokens": tokens}


def explanations_text(layers: Sequence[LayerCards], config: ExplainConfig) -> str:
    """What the report says above its tables."""
    n_cards = sum(len(layer.cards) for layer in layers)
    n_said = sum(bool(card.explanations) for _, card in _cards(layers))
    where = ", ".join(str(layer.layer) for layer in layers)
    text = f"{n_cards:,} features of layer{'s' if len(layers) > 1 else ''} {where}; {n_said:,} with an explanation."
    if not config.cards:
        return text
    chosen = "the most frequent ones"
    if config.features or config.feature_ids_file or config.feature_scores:
        chosen = "those that were asked for" if config.features else "in the order of the file of scores or ids"
    return (
        f"{text} Shown are {chosen}. A feature fires where its activation is above 0; BOS and other tokens that are "
        "kept out of statistics never count. A card has the strongest context of each of the documents that make its "
        "feature fire most, contexts drawn at random from all its firings, the histogram of its activations, its "
        "tokens by share of activation, the words that its decoder direction promotes and suppresses (logit lens), and "
        "its nearest features.\n\nTop contexts flatter: judge an interpretation by the contexts of every strength, too."
    )


def feature_tables(layers: Sequence[LayerCards], strings: Mapping[int, str]) -> list[Table]:
    """The first features of each layer, as many as a terminal holds."""
    return [_table(layers, strings, max(2, _MOST_ROWS // len(layers)), "Features")]


def all_features(layers: Sequence[LayerCards], strings: Mapping[int, str]) -> list[Table]:
    """Every feature, for the report page, where the terminal's table has not all of them."""
    per_layer = max(2, _MOST_ROWS // len(layers))
    if all(len(layer.cards) <= per_layer for layer in layers):
        return []
    return [_table(layers, strings, None, "All features")]


def _table(layers: Sequence[LayerCards], strings: Mapping[int, str], per_layer: int | None, title: str) -> Table:
    every = [card for _, card in _cards(layers)]
    with_activity = any(card.activity is not None for card in every)
    with_words = any(card.promoted is not None for card in every)
    with_text = any(card.explanations for card in every)
    score = next((name for card in every for name in card.scores), None)
    columns = ["layer", "feature"]
    columns += [score.replace("_", " ")] if score else []
    columns += ["rate", "maximum", "top tokens (share)"] if with_activity else []
    columns += ["promotes"] if with_words else []
    columns += ["explanation"] if with_text else []
    rows: list[list[Cell]] = []
    for layer in layers:
        for card in layer.cards[:per_layer]:
            tokens, promoted = card_words(card, strings, n=3)
            row: list[Cell] = [layer.layer, str(card.feature)]
            row += [card.scores.get(score)] if score else []
            if with_activity:
                activity = card.activity
                row += [activity.rate, activity.maximum, tokens] if activity is not None else [None, None, ""]
            row += [promoted] if with_words else []
            row += [card.explanations[0].text if card.explanations else "–"] if with_text else []
            rows.append(row)
    caption = (
        "rate: share of counted tokens on which the feature fires. top tokens: with their shares of its activation."
    )
    left_out = len(every) - len(rows)
    caption = (caption if with_activity else "") + (
        f" {left_out:,} more features are on the cards." if left_out else ""
    )
    return Table(title, columns, rows, caption.strip())


def explanation_metrics(layers: Sequence[LayerCards]) -> dict[str, float]:
    """Numbers for the tracker."""
    metrics: dict[str, float] = {}
    for layer in layers:
        metrics[f"layer_{layer.layer}/explained"] = float(sum(bool(card.explanations) for card in layer.cards))
        if layer.firings is not None:
            metrics[f"layer_{layer.layer}/dead_share"] = float((layer.firings == 0).float().mean())
    return metrics


def explanation_figures(layers: Sequence[LayerCards]) -> list[NamedChart]:
    """How often the features of each SAE fire, all of them, where a store was read."""
    records, dead = [], []
    for layer in layers[:_MOST_PANELS]:
        if layer.firings is None:
            continue
        counts = layer.firings.numpy()
        rates = np.log10(counts[counts > 0] / layer.n_tokens)
        if not len(rates):
            continue
        edges = np.arange(math.floor(rates.min() * _BINS_PER_DECADE), 1) / _BINS_PER_DECADE
        in_bins, _ = np.histogram(rates, edges) if len(edges) > 1 else (np.array([len(rates)]), edges)
        edges = edges if len(edges) > 1 else np.array([-1 / _BINS_PER_DECADE, 0.0])
        records += [
            {"layer": layer.layer, "low": float(low), "high": float(high), "features": int(n)}
            for low, high, n in zip(edges, edges[1:], in_bins, strict=False)
        ]
        n_dead = int((counts == 0).sum())
        dead.append({"layer": layer.layer, "text": f"{n_dead:,} of {len(counts):,} never fire"})
    if not records:
        return []
    caption = "All features of each SAE, on the counted tokens of the store; those that never fire are not in the bars."
    return [NamedChart("firing_rates", "How often features fire", firing_rates(records, dead), caption)]


def copy_output(artifact: Path, output_file: str | None, layers: Sequence[int]) -> list[Path]:
    """Copy the explanations of each layer to where the user wants them, too; StrataError for a full disk."""
    if output_file is None:
        return []
    copied = []
    for layer in layers:
        path = Path(output_file.replace("{layer}", str(layer))).expanduser()
        make_folder(path.parent)
        with disk_errors(path):
            shutil.copyfile(artifact / explanations_name(layer), path)
        copied.append(path)
    return copied
