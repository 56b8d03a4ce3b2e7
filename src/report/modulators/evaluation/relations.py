"""What eval_modulator.py shows of the relations of words: modulated states beside the frozen model's and controls'."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from src.geometry.words.matching import Word
from src.geometry.words.pair_sums import JackknifeEstimate
from src.modulators.evaluation.effects import FROZEN
from src.modulators.evaluation.geometry.differences import WordDifference
from src.modulators.evaluation.geometry.readings import MEASURES, MODULATED, STATIC, Contrast, ReadingProfile
from src.modulators.evaluation.geometry.relations import BANDS
from src.report.artifact_report import NamedChart
from src.report.figures.lexicon import NO_LAYER, lexicon_figure
from src.report.finding import Finding
from src.report.tables import Cell, Table, cell_text, finite_or_none, interval_cell

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class RelationsFound:
    """What was measured, and of what.

    taxonomy: its source. words: that were evaluated on. told: held-out words that were left out, since their
    definitions were trained on. n_known: of the words, how many have a vector in the modulator; None if it has no
    vectors. carriers, transform: as configured. layer: after whose block readings are contrasted. profiles: of all
    readings; contrasts: of the modulated one at `layer`.
    """

    taxonomy: str
    words: Sequence[Word]
    told: int
    n_known: int | None
    carriers: Sequence[str]
    transform: str
    layer: int
    profiles: Sequence[ReadingProfile]
    contrasts: Sequence[Contrast]

    @property
    def here(self) -> list[ReadingProfile]:
        """Readings at the layer, after embedding rows."""
        return [profile for profile in self.profiles if profile.layer in (None, self.layer)]

    @property
    def controls(self) -> list[Contrast]:
        """All but that with the frozen model."""
        return [each for each in self.contrasts if each.other != FROZEN]


def relations_finding(found: RelationsFound) -> Finding:
    """Text, tables, one figure, and every number as records."""
    change = next(each for each in found.contrasts if each.other == FROZEN)
    modulated = next(each for each in found.here if each.name == MODULATED)
    return Finding(
        "\n\n".join((_first(found, change), _verdict(found), _what(found))),
        [_reading_table(found), _contrast_table(found), _band_table(found)],
        [_figure(found)],
        records={
            "word_relations": [_reading_record(profile) for profile in found.profiles],
            "word_contrasts": [_contrast_record(found.layer, each) for each in found.contrasts],
            "word_bands": list(_band_records(found)),
            "word_distances": list(_distance_records(found)),
            "evaluated_words": [
                {"word": word.text, "token_id": word.token_ids[0], "sense": word.senses[0]} for word in found.words
            ],
        },
        metrics={
            "relations/modulated": modulated.path.value,
            "relations/change": change.differences["path"].value,
            **{f"relations/less_{each.other}": each.differences["path"].value for each in found.controls},
        },
    )


def _first(found: RelationsFound, change: Contrast) -> str:
    by_name = {profile.name: profile for profile in found.here}
    n = by_name[MODULATED].draws[0].path.n_words
    modulated, frozen = (by_name[name].path for name in (MODULATED, FROZEN))
    if not math.isfinite(modulated.value):
        return (
            f"The modulated states of {n} held-out words after block {found.layer} have no relation to speak of: their "
            "cosines, or the words' similarities, are all alike."
        )
    return (
        f"After block {found.layer} the cosines of {n} held-out words' states correlate with path similarity by r = "
        f"{_estimate(modulated)} when modulated, and by {_estimate(frozen)} in the frozen model: "
        f"{_change(change.differences['path'])} (p = {change.p:.2g})."
    )


def _verdict(found: RelationsFound) -> str:
    if not found.controls:
        return "There are no controls of equal strength beside it, so the change can't be told from that of any other."
    beyond = [each.other for each in found.controls if _is_beyond(each)]
    others = [each.other for each in found.controls if not _is_beyond(each)]
    if not others:
        said = f"That is more than with each of the {len(beyond)} controls of equal strength ({', '.join(beyond)})"
    elif beyond:
        said = f"At equal strength that is more than with {', '.join(beyond)}, but not than with {', '.join(others)}"
    else:
        said = (
            f"That is not more than with any of the controls of equal strength ({', '.join(others)}), so nothing says "
            "that it comes of where the modulator's vectors or simplices lie"
        )
    return f"{said}; differences are paired over words, Holm's correction over all of them, level {LEVEL}."


def _is_beyond(contrast: Contrast) -> bool:
    return contrast.p <= LEVEL and contrast.differences["path"].value > 0


def _what(found: RelationsFound) -> str:
    sentences = ["No vector of the modulator was made from these words or from others of their synsets."]
    if found.n_known is not None:
        sentences.append(f"{found.n_known} of the {len(found.words)} words have a vector that is mixed in.")
    if found.told:
        sentences.append(f"{found.told} held-out words were left out: it was trained on their definitions.")
    relations = found.here[0].draws[0].path
    if relations.coverage < 1:
        sentences.append(f"{relations.coverage:.0%} of the pairs are connected; the others are left out.")
    if all(not math.isfinite(profile.slope.value) for profile in found.here):
        sentences.append("Too few of the words are kinds of others for slopes over steps up.")
    return " ".join(sentences)


def _reading_table(found: RelationsFound) -> Table:
    slopes = any(math.isfinite(profile.slope.value) for profile in found.here)
    rows: list[Sequence[Cell]] = [
        [
            profile.name,
            _cell(profile.path),
            f"{profile.low:.3f}, {profile.high:.3f}",
            finite_or_none(profile.p),
            finite_or_none(profile.spearman.value),
            _cell(profile.wu_palmer),
            *([finite_or_none(profile.slope.value)] if slopes else []),
        ]
        for profile in found.here
    ]
    caption = (
        "r: Pearson correlation of cosines with path similarity over all pairs of words, with its 95 % jackknife "
        "interval over words (mean over the draws of random controls). chance: 95 % of permuted words; p: over all "
        "readings and layers."
    )
    if slopes:
        caption += " slope: change of the cosine with words above for each step up, less that with words as deep."
    columns = ["states", "r", "chance", "p", "Spearman", "Wu-Palmer r", *(["slope"] if slopes else [])]
    return Table(f"Relations of held-out words, after block {found.layer}", columns, rows, caption)


def _contrast_table(found: RelationsFound) -> Table:
    slopes = any(math.isfinite(each.differences["slope"].value) for each in found.contrasts)
    shown = ["Wu-Palmer", "Spearman", *(["slope"] if slopes else [])]
    rows: list[Sequence[Cell]] = [
        [
            each.other,
            _difference(each.differences["path"]),
            finite_or_none(each.p),
            *(_difference(each.differences[measure]) for measure in shown),
        ]
        for each in found.contrasts
    ]
    caption = (
        "Differences of the correlations above, paired over words (jackknife); how far the draws of a random control "
        "lie apart is part of the interval. p: of r, corrected for all rows (Holm). Controls have the modulator's "
        "strengths and are not trained."
    )
    return Table(f"Modulated states less others, after block {found.layer}", ["less", "r", "p", *shown], rows, caption)


def _band_table(found: RelationsFound) -> Table:
    by_name = {profile.name: profile for profile in found.here}
    change = next(each for each in found.contrasts if each.other == FROZEN)
    rows: list[Sequence[Cell]] = []
    for name in BANDS:
        if name in change.bands:
            band = by_name[MODULATED].draws[0].bands[name]
            frozen = by_name[FROZEN].draws[0].bands[name]
            rows.append([name, band.n_pairs, _cell(frozen.mean), _cell(band.mean), _difference(change.bands[name])])
    caption = "Each pair is in one band. Intervals: 95 %, jackknife over words; differences paired."
    columns = ["path similarity", "pairs", "frozen", "modulated", "difference"]
    return Table("Mean cosine by similarity", columns, rows, caption)


def _figure(found: RelationsFound) -> NamedChart:
    by_layer = [
        {
            "panel": panel,
            "series": profile.name,
            "x": NO_LAYER if profile.layer is None else profile.layer,
            "value": finite_or_none(estimate.value),
            "low": finite_or_none(estimate.low),
            "high": finite_or_none(estimate.high),
            "null_low": finite_or_none(profile.low) if panel == _PATH else None,
            "null_high": finite_or_none(profile.high) if panel == _PATH else None,
        }
        for panel, measure in ((_PATH, "path"), ("Correlation with Wu-Palmer similarity", "Wu-Palmer"))
        for profile in found.profiles
        for estimate in (getattr(profile, _PROPERTIES[measure]),)
    ]
    by_distance = [
        record | {"series": record["states"], "x": record["distance"], "value": record["cosine"]}
        for record in _distance_records(found)
        if record["states"] != STATIC
    ]
    by_steps = [
        {
            "series": profile.name,
            "x": int(steps),
            "kind": kind,
            "value": float(values[place]),
            "n_pairs": int(decay.n_pairs[place]),
            "n_ancestors": int(decay.n_ancestors[place]),
        }
        for profile in found.here
        if (decay := profile.draws[0].decay) is not None
        for kind, values in (("words above", decay.cosine), ("words as deep", decay.control))
        for place, steps in enumerate(decay.steps)
    ]
    title = "Relations of held-out words, modulated and not"
    shown = "grey: chance (95 % of permuted words, of all readings together)"
    caption = (
        "Does the modulator bring states closer to the taxonomy? Correlations of cosines with similarities of words "
        f"by layer ({STATIC} at the left), with 95 % intervals (jackknife over words), and for path similarity what "
        f"permuted words give. After block {found.layer}: mean cosine at each distance, and with words above (dashed: "
        "with other words as deep). What the modulated curve has beyond those of the controls of equal strength is "
        "due to what the modulator has learnt or was begun with; intervals of one word set move together, so the "
        "table of differences says more than their overlap."
    )
    return NamedChart(
        "word_relations", title, lexicon_figure(by_layer, by_distance, by_steps, [], title, shown), caption
    )


_PATH = "Correlation with path similarity"
_PROPERTIES = {"path": "path", "Wu-Palmer": "wu_palmer", "Spearman": "spearman", "slope": "slope"}


def _reading_record(profile: ReadingProfile) -> dict[str, Any]:
    record: dict[str, Any] = {"states": profile.name, "layer": profile.layer, "n_draws": len(profile.draws)}
    for measure, name in _PROPERTIES.items():
        estimate: JackknifeEstimate = getattr(profile, name)
        values = [each.value for each in profile.estimates(measure)]
        record |= {name: finite_or_none(estimate.value), f"{name}_error": finite_or_none(estimate.error)}
        record[f"{name}_draws"] = [finite_or_none(value) for value in values]
    gradient = profile.draws[0].path.gradient
    chance = {"chance_low": profile.low, "chance_high": profile.high, "p": profile.p, "gradient": gradient.value}
    return record | {name: finite_or_none(value) for name, value in chance.items()}


def _contrast_record(layer: int, contrast: Contrast) -> dict[str, Any]:
    record: dict[str, Any] = {"modulated_less": contrast.other, "layer": layer, "holm_p": finite_or_none(contrast.p)}
    for measure in MEASURES:
        name, difference = _PROPERTIES[measure], contrast.differences[measure]
        record |= {name: finite_or_none(difference.value), f"{name}_p": finite_or_none(difference.p)}
        record |= {f"{name}_low": finite_or_none(difference.low), f"{name}_high": finite_or_none(difference.high)}
    return record


def _band_records(found: RelationsFound) -> Iterator[dict[str, Any]]:
    for profile in found.here:
        for name, band in profile.draws[0].bands.items():
            values = {"cosine": band.mean.value, "low": band.mean.low, "high": band.mean.high}
            yield {
                "states": profile.name,
                "similarity": name,
                "n_pairs": band.n_pairs,
                **{key: finite_or_none(value) for key, value in values.items()},
            }


def _distance_records(found: RelationsFound) -> Iterator[dict[str, Any]]:
    for profile in found.here:
        rows = profile.draws[0].path.by_distance
        for place, distance in enumerate(rows.distances.tolist()):
            mean = rows.mean[place]
            values = {"cosine": mean.value, "low": mean.low, "high": mean.high}
            yield {
                "states": profile.name,
                "distance": distance,
                "n_pairs": int(rows.n_pairs[place]),
                **{key: finite_or_none(value) for key, value in values.items()},
            }


def _cell(estimate: JackknifeEstimate) -> Cell:
    return interval_cell(estimate.value, estimate.low, estimate.high)


def _difference(difference: WordDifference) -> Cell:
    return interval_cell(difference.value, difference.low, difference.high)


def _estimate(estimate: JackknifeEstimate) -> str:
    written = cell_text(_cell(estimate))
    return f"{written.text} {written.interval}".strip()


def _change(difference: WordDifference) -> str:
    written = cell_text(_difference(difference))
    return f"a difference of {written.text} {written.interval}".strip()
