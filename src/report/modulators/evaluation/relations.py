"""What eval_modulator.py shows of the relations of words: modulated states beside the frozen model's and controls'."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from src.geometry.words.matching import Word
from src.geometry.words.pair_sums import JackknifeEstimate
from src.modulators.evaluation.effects import FROZEN
from src.modulators.evaluation.geometry.differences import WordDifference
from src.modulators.evaluation.geometry.readings import MODULATED, VECTORS, Contrast, ReadingProfile
from src.modulators.evaluation.geometry.relations import BANDS
from src.report.artifact_report import NamedChart
from src.report.figures.lexicon import NO_LAYER
from src.report.figures.modulator_geometry import relations_chart
from src.report.finding import Finding
from src.report.modulators.evaluation.relation_records import (
    band_records,
    contrast_record,
    distance_records,
    reading_record,
)
from src.report.tables import Cell, Table, cell_text, finite_or_none, interval_cell

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class RelationsFound:
    """What was measured, and of what.

    words: that were evaluated on. told: held-out words that were left out, since their definitions were trained on.
    n_known: of the words, how many have a vector in the modulator; None if it has no vectors. layer: after whose block
    readings are contrasted. profiles: of all readings; contrasts: of the modulated one at `layer`.
    """

    words: Sequence[Word]
    told: int
    n_known: int | None
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
            "word_relations": [reading_record(profile) for profile in found.profiles],
            "word_contrasts": [contrast_record(found.layer, each) for each in found.contrasts],
            "word_bands": list(band_records(found.here)),
            "word_distances": list(distance_records(found.here)),
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
    for vectors in (profile for profile in found.here if profile.name == VECTORS):
        sentences.append(f"These vectors themselves correlate with path similarity by r = {_estimate(vectors.path)}.")
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
            finite_or_none(round(profile.spearman.value, 4)),
            _cell(profile.wu_palmer),
            *([finite_or_none(round(profile.slope.value, 4))] if slopes else []),
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
    shown = ["Wu-Palmer", "slope" if slopes else "Spearman"]
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
    # the modulator first, then the frozen model
    profiles = sorted(found.profiles, key=lambda each: (each.name != MODULATED, each.name != FROZEN))
    by_layer = [
        {
            "series": profile.name,
            "x": NO_LAYER if profile.layer is None else profile.layer,
            "value": finite_or_none(profile.path.value),
            "null_low": finite_or_none(profile.low),
            "null_high": finite_or_none(profile.high),
        }
        for profile in profiles
    ]
    shown = {"path": "r with path similarity", "Wu-Palmer": "r with Wu-Palmer similarity", "Spearman": "Spearman"}
    differences = [
        {"panel": f"{words}, modulated less", "row": each.other, **_ends(each.differences[measure])}
        for measure, words in shown.items()
        for each in found.contrasts
    ]
    by_distance = [
        record | {"series": record["states"], "x": record["distance"], "value": record["cosine"]}
        for record in distance_records(found.here)
        if record["states"] in (MODULATED, FROZEN)
    ]
    title = "Relations of held-out words, modulated and not"
    subtitle = f"below: differences after block {found.layer}, paired; grey: chance (95 % of permuted words)"
    caption = (
        "Does the modulator bring states closer to the taxonomy? Above: correlations of cosines with path similarity "
        "by layer, beside the frozen model, controls of equal strength and what permuted words give; and after block "
        f"{found.layer} the mean cosine at each distance, with 95 % intervals (jackknife over words). Below: what the "
        "modulated states have beyond each of the others, with paired intervals. An interval to the right of the line "
        "against every control says that it comes of what the modulator's vectors or gates are."
    )
    chart = relations_chart(by_layer, differences, by_distance, title, subtitle)
    return NamedChart("word_relations", title, chart, caption)


def _ends(difference: WordDifference) -> dict[str, float | None]:
    values = {"value": difference.value, "low": difference.low, "high": difference.high}
    return {name: finite_or_none(value) for name, value in values.items()}


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
