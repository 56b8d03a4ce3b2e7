"""What analysis=lexicon shows: words, tables, the figure, records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.matching import NAMES_OF_POS, Matches
from src.geometry.words.occurrences import Occurrences
from src.geometry.words.profiling import ProfileSettings, WordProfile
from src.report.artifact_report import NamedChart
from src.report.figures.lexicon import lexicon_figure
from src.report.finding import Finding
from src.report.geometry.lexicon.panels import (
    CONTROLS,
    NEUTRAL,
    class_panel,
    decay_panel,
    distance_panel,
    layer_panels,
    profile_name,
)
from src.report.geometry.lexicon.records import class_records, decay_records, distance_records, profile_values
from src.report.geometry.lexicon.tables import class_tables, correlation_table, decay_tables, distance_table
from src.report.token_text import one_line

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class LexiconFound:
    """What was measured, and of what. frequency_source: where counts of words are from; empty without."""

    model: str
    taxonomy: Taxonomy
    matches: Matches
    profiles: list[WordProfile]
    settings: ProfileSettings
    frequency_source: str
    occurrences: Occurrences | None
    config: dict[str, Any]


def lexicon_finding(found: LexiconFound) -> Finding:
    """Text, tables, one figure, and every number as records."""
    best = best_profiles(found.profiles)
    layers = "; ".join(profile_name(each) for each in best if each.layer is not None)
    shown = f"; panels without layers show {layers}" if layers else ""
    title = f"Words of {found.model} in the taxonomy {_taxonomy_name(found)}"
    chart = lexicon_figure(
        layer_panels(found.profiles),
        distance_panel(best),
        decay_panel(best),
        class_panel(best),
        title,
        f"grey: chance (95 % of permuted words or labels; of purity, its mean){shown}",
    )
    caption = (
        "Correlation of cosines with path similarity over all pairs of words, with 95 % intervals (jackknife over "
        "words), and what permuted words give. Mean cosine at each distance. Mean cosine of words with those above "
        "them, and with other words as deep (dashed). Mean cosine within classes, where labels are permuted in grey. "
        "Purity: nearest neighbours of the same class. Slope: change of the cosine with words above, less the control, "
        "for each step up, with intervals clustered by the word above."
    )
    numbers = [profile_values(profile) for profile in found.profiles]
    return Finding(
        lexicon_text(found, best),
        tables=[correlation_table(found.profiles), distance_table(best), *decay_tables(best), *class_tables(best)],
        figures=[NamedChart("lexicon", title, chart, caption)],
        records={
            "lexicon": numbers,
            "by_distance": distance_records(found.profiles),
            "hypernyms": decay_records(found.profiles),
            "classes": class_records(found.profiles),
            "words": _word_records(found),
        },
        files={"lexicon.json": _document(found, numbers)},
        metrics=_metrics(best),
    )


def best_profiles(profiles: Sequence[WordProfile]) -> list[WordProfile]:
    """Of each representation the layer with the largest correlation."""
    found: dict[str, WordProfile] = {}
    for profile in profiles:
        known = found.get(profile.representation)
        if known is None or _size(profile) > _size(known):
            found[profile.representation] = profile
    return list(found.values())


def _size(profile: WordProfile) -> float:
    value = profile.correlations.pearson.value
    return value if math.isfinite(value) else -2.0


def _taxonomy_name(found: LexiconFound) -> str:
    return one_line(found.taxonomy.source.rpartition(" ")[0] or found.taxonomy.source, 40)


def lexicon_text(found: LexiconFound, best: Sequence[WordProfile]) -> str:
    """Paragraphs: what was found beside chance, of which words, and what to beware of."""
    top = max(_neutral(best), key=_size)
    r, chance = top.correlations.pearson, top.pearson_chance
    verdict = "follow" if chance.adjusted <= LEVEL and r.value > 0 else "do not follow"
    n_tests = len(found.profiles)
    pos = NAMES_OF_POS[found.config["pos"]]
    first = (
        f"Cosines of {top.correlations.n_words:,} {pos} {verdict} their distances in the taxonomy "
        f"{_taxonomy_name(found)}: at most r = {r.value:.3f} with path similarity ({profile_name(top)}); "
        f"permuted words give {chance.low:.3f} to {chance.high:.3f} (p = {chance.adjusted:.2g}, corrected over "
        f"{n_tests} tests). Its 95 % interval is {r.low:.3f} to {r.high:.3f}, over {top.correlations.n_pairs:,} pairs."
    )
    others = [_sentence(profile) for profile in best if profile is not top]
    parts = [" ".join([first, *others, *_beyond(found)]), " ".join(_words_of(found)), " ".join(_warnings(found, best))]
    return "\n\n".join(part for part in parts if part)


def _neutral(best: Sequence[WordProfile]) -> list[WordProfile]:
    """Those that no text tells of a word's kind; without any, all but the controls, which need no model."""
    measured = [each for each in best if each.representation not in CONTROLS]
    return [each for each in measured if each.representation in NEUTRAL] or measured


def _sentence(profile: WordProfile) -> str:
    r, chance = profile.correlations.pearson, profile.pearson_chance
    if not math.isfinite(r.value):
        return f"{profile_name(profile).capitalize()}: all cosines are alike, so nothing is correlated."
    return (
        f"{profile_name(profile).capitalize()}: {r.value:.3f} ({r.low:.3f} to {r.high:.3f}; chance {chance.low:.3f} to "
        f"{chance.high:.3f}, p = {chance.adjusted:.2g})."
    )


def _beyond(found: LexiconFound) -> list[str]:
    tested = [profile for profile in found.profiles if profile.representation not in CONTROLS]
    beyond = sum(each.pearson_chance.adjusted <= LEVEL and each.correlations.pearson.value > 0 for each in tested)
    return [f"{beyond} of {len(tested)} representations and layers lie beyond chance (corrected p <= {LEVEL:g})."]


def _words_of(found: LexiconFound) -> list[str]:
    matches, n = found.matches, len(found.matches.words)
    pos = NAMES_OF_POS[found.config["pos"]]
    sentences = [f"{matches.n_found:,} {pos} of the taxonomy are words of the tokenizer"]
    sentences[0] += "." if n == matches.n_found else f"; the {n:,} most frequent ones are taken."
    if matches.n_pieces:
        sentences.append(f"{matches.n_pieces:,} of them are several tokens, which are averaged.")
    if 0 < matches.uncounted < 1:
        sentences.append(
            f"{matches.uncounted:.0%} occur in no tagged text with this sense: some may be words of another language "
            "(min_count=1 leaves them out)."
        )
    distances = found.profiles[0].correlations.by_distance
    if 0 in distances.distances:
        sentences.append(f"{int(distances.n_pairs[list(distances.distances).index(0)]):,} pairs share a sense.")
    coverage = found.profiles[0].correlations.coverage
    if coverage < 1:
        sentences.append(f"{coverage:.1%} of the pairs are connected; the others are left out.")
    if found.occurrences is not None:
        sentences.append(
            f"Contexts: {len(found.occurrences.word):,} occurrences; {found.occurrences.named:,} behind a word for a "
            "kind of their own were passed over."
        )
    return sentences


def _warnings(found: LexiconFound, best: Sequence[WordProfile]) -> list[str]:
    sentences = []
    if any(profile.representation.startswith("definition") for profile in best):
        sentences.append(
            "Definitions name kinds, and words of one kind share their wording: compare with the definition's words, "
            "the mean of their embedding rows, which no model has read in order. Pairs that share a sense are left "
            "out there."
        )
    if any(profile.representation == "contexts" for profile in best):
        sentences.append(
            "Words of one kind stand in texts of one kind, and states pick up the words around: compare with the mean "
            "of those words' embedding rows, which needs no model. A carrier sentence holds the word alone."
        )
    if found.settings.transform == "raw":
        sentences.append("Cosines are raw: what all words share makes them alike.")
    return sentences


def _word_records(found: LexiconFound) -> list[dict[str, Any]]:
    occurrences = found.occurrences
    return [
        {
            "word": word.text,
            "surface": word.surface,
            "token_ids": list(word.token_ids),
            "sense": found.taxonomy.names[word.senses[0]],
            "class": found.taxonomy.classes[word.senses[0]],
            "tagged_count": word.count,
            "n_senses": len(word.senses),
            "occurrences": None if occurrences is None else int(occurrences.count[place]),
            "contexts": None if occurrences is None else int(np.sum(occurrences.word == place)),
        }
        for place, word in enumerate(found.matches.words)
    ]


def _document(found: LexiconFound, numbers: list[dict[str, Any]]) -> dict[str, Any]:
    finite = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in numbers
    ]
    return {
        "model": found.model,
        "taxonomy": found.taxonomy.source,
        "settings": found.config,
        "frequencies": found.frequency_source or None,
        "n_words": len(found.matches.words),
        "n_found": found.matches.n_found,
        "n_several_tokens": found.matches.n_pieces,
        "share_uncounted": found.matches.uncounted,
        "n_contexts": None if found.occurrences is None else len(found.occurrences.word),
        "n_contexts_behind_their_kind": None if found.occurrences is None else found.occurrences.named,
        "profiles": finite,
    }


def _metrics(best: Sequence[WordProfile]) -> dict[str, float]:
    metrics = {}
    for profile in best:
        name = f"lexicon/{profile.representation}"
        metrics |= {f"{name}/r": profile.correlations.pearson.value, f"{name}/p": profile.pearson_chance.adjusted}
        if profile.layer is not None:
            metrics[f"{name}/layer"] = float(profile.layer)
    return metrics
