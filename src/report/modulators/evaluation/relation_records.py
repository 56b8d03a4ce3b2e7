"""Every number of the relations of words as flat records."""

from collections.abc import Iterator, Sequence
from typing import Any

from src.geometry.words.pair_sums import JackknifeEstimate
from src.modulators.evaluation.geometry.readings import MEASURES, Contrast, ReadingProfile
from src.report.tables import finite_or_none

# columns of MEASURES, and properties of ReadingProfile
_PROPERTIES = {"path": "path", "Wu-Palmer": "wu_palmer", "Spearman": "spearman", "slope": "slope"}


def reading_record(profile: ReadingProfile) -> dict[str, Any]:
    """One reading at one layer: estimates with their errors, every draw, chance."""
    record: dict[str, Any] = {"states": profile.name, "layer": profile.layer, "n_draws": len(profile.draws)}
    for measure, name in _PROPERTIES.items():
        estimate: JackknifeEstimate = getattr(profile, name)
        values = [each.value for each in profile.estimates(measure)]
        record |= {name: finite_or_none(estimate.value), f"{name}_error": finite_or_none(estimate.error)}
        record[f"{name}_draws"] = [finite_or_none(value) for value in values]
    gradient = profile.draws[0].path.gradient
    chance = {"chance_low": profile.low, "chance_high": profile.high, "p": profile.p, "gradient": gradient.value}
    return record | {name: finite_or_none(value) for name, value in chance.items()}


def contrast_record(layer: int, contrast: Contrast) -> dict[str, Any]:
    """The modulated states less another reading."""
    record: dict[str, Any] = {"modulated_less": contrast.other, "layer": layer, "holm_p": finite_or_none(contrast.p)}
    for measure in MEASURES:
        name, difference = _PROPERTIES[measure], contrast.differences[measure]
        record |= {name: finite_or_none(difference.value), f"{name}_p": finite_or_none(difference.p)}
        record |= {f"{name}_low": finite_or_none(difference.low), f"{name}_high": finite_or_none(difference.high)}
    return record


def band_records(profiles: Sequence[ReadingProfile]) -> Iterator[dict[str, Any]]:
    """Mean cosines by band of similarity, of first draws."""
    for profile in profiles:
        for name, band in profile.draws[0].bands.items():
            values = {"cosine": band.mean.value, "low": band.mean.low, "high": band.mean.high}
            yield {
                "states": profile.name,
                "similarity": name,
                "n_pairs": band.n_pairs,
                **{key: finite_or_none(value) for key, value in values.items()},
            }


def distance_records(profiles: Sequence[ReadingProfile]) -> Iterator[dict[str, Any]]:
    """Mean cosines by distance, of first draws."""
    for profile in profiles:
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
