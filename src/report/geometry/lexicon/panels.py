"""Rows of the panels of the lexicon's figure."""

from collections.abc import Sequence
from typing import Any

from src.geometry.words.profiling import WordProfile
from src.report.figures.lexicon import NO_LAYER
from src.report.token_text import one_line

_NAMES = {
    "static": "embedding rows",
    "carrier": "carrier sentence",
    "contexts": "running text",
    "context_words": "words around",
    "definition_mean": "definition, mean",
    "definition_last": "definition, last",
    "definition_words": "definition's words",
}
# representations to which no text tells the kind of a word
NEUTRAL = ("static", "carrier")
# what texts say without a model
CONTROLS = ("context_words", "definition_words")
_MOST_CLASSES = 15


def representation_name(representation: str) -> str:
    """For readers."""
    return _NAMES[representation]


def profile_name(profile: WordProfile) -> str:
    """Representation and layer."""
    name = representation_name(profile.representation)
    return name if profile.layer is None else f"{name}, layer {profile.layer}"


def layer_panels(profiles: Sequence[WordProfile]) -> list[dict[str, Any]]:
    """Correlation, purity and slope at every layer."""
    records = []
    for profile in profiles:
        x = NO_LAYER if profile.layer is None else profile.layer
        about = {"series": representation_name(profile.representation), "x": x}
        r, chance = profile.correlations.pearson, profile.pearson_chance
        values = {"value": r.value, "low": r.low, "high": r.high, "null_low": chance.low, "null_high": chance.high}
        records.append({"panel": "Correlation with path similarity", **about, **values})
    for profile in profiles:
        x = NO_LAYER if profile.layer is None else profile.layer
        about = {"series": representation_name(profile.representation), "x": x}
        if (clustering := profile.clustering) is not None:
            expected = clustering.expected_purity
            values = {"value": clustering.purity, "null_low": 0.0, "null_high": expected}
            records.append({"panel": "Purity of classes", **about, **values})
        if (decay := profile.decay) is not None:
            slope = decay.excess_slope
            values = {"value": slope.value, "low": slope.low, "high": slope.high, "null_low": 0.0, "null_high": 0.0}
            records.append({"panel": "Hypernym slope less control", **about, **values})
    return records


def distance_panel(best: Sequence[WordProfile]) -> list[dict[str, Any]]:
    """Mean cosine by distance."""
    return [
        {
            "series": representation_name(profile.representation),
            "x": int(distance),
            "value": rows.mean[i].value,
            "low": rows.mean[i].low,
            "high": rows.mean[i].high,
            "n_pairs": int(rows.n_pairs[i]),
        }
        for profile in best
        for rows in [profile.correlations.by_distance]
        for i, distance in enumerate(rows.distances)
    ]


def decay_panel(best: Sequence[WordProfile]) -> list[dict[str, Any]]:
    """Mean cosine with words above, and with their control."""
    return [
        {
            "series": representation_name(profile.representation),
            "x": int(steps),
            "kind": kind,
            "value": float(values[i]),
            "n_pairs": int(profile.decay.n_pairs[i]),
            "n_ancestors": int(profile.decay.n_ancestors[i]),
        }
        for profile in best
        if profile.decay is not None
        for kind, values in (("words above", profile.decay.cosine), ("words as deep", profile.decay.control))
        for i, steps in enumerate(profile.decay.steps)
    ]


def class_panel(best: Sequence[WordProfile]) -> list[dict[str, Any]]:
    """The largest classes, with 2 standard deviations of permuted labels."""
    return [
        {
            "series": representation_name(profile.representation),
            "class": one_line(name, 40),
            "n": int(profile.clustering.n[i]),
            "value": float(profile.clustering.lift[i]),
            "p": float(profile.clustering.p[i]),
            "null_low": -2 * float(profile.clustering.null_sd[i]),
            "null_high": 2 * float(profile.clustering.null_sd[i]),
        }
        for profile in best
        if profile.clustering is not None
        for i, name in enumerate(profile.classes[:_MOST_CLASSES])
    ]
