"""Every number of analysis=lexicon as flat records."""

from collections.abc import Sequence
from typing import Any

from src.geometry.percentiles import PERCENTILES
from src.geometry.words.profiling import WordProfile


def profile_values(profile: WordProfile) -> dict[str, Any]:
    """Every scalar of one representation at one layer."""
    measured = profile.correlations
    values: dict[str, Any] = {
        "representation": profile.representation,
        "layer": profile.layer,
        "n_words": measured.n_words,
        "n_pairs": measured.n_pairs,
        "coverage": measured.coverage,
    }
    for name in ("pearson", "pearson_distance", "spearman", "partial", "gradient"):
        estimate = getattr(measured, name)
        values |= {name: estimate.value, f"{name}_error": estimate.error}
    for name, chance in (("pearson", profile.pearson_chance), ("spearman", profile.spearman_chance)):
        values |= {f"{name}_chance_low": chance.low, f"{name}_chance_high": chance.high}
        values |= {f"{name}_p": chance.p, f"{name}_p_corrected": chance.adjusted}
    if (found := profile.clustering) is not None:
        for name in (
            "mean_within",
            "mean_between",
            "silhouette",
            "silhouette_p",
            "purity",
            "expected_purity",
            "purity_p",
        ):
            values[name] = getattr(found, name)
    if (decay := profile.decay) is not None:
        for name in ("slope", "control_slope", "excess_slope"):
            slope = getattr(decay, name)
            values |= {
                f"hypernym_{name}": slope.value,
                f"hypernym_{name}_low": slope.low,
                f"hypernym_{name}_high": slope.high,
            }
    return values


def distance_records(profiles: Sequence[WordProfile]) -> list[dict[str, Any]]:
    """Cosines by distance, of all of them."""
    return [
        {
            "representation": profile.representation,
            "layer": profile.layer,
            "distance": int(distance),
            "n_pairs": int(rows.n_pairs[i]),
            "mean": rows.mean[i].value,
            "mean_error": rows.mean[i].error,
            "sd": float(rows.sd[i]),
            **{f"p{share}": float(value) for share, value in zip(PERCENTILES, rows.percentiles[i], strict=True)},
        }
        for profile in profiles
        for rows in [profile.correlations.by_distance]
        for i, distance in enumerate(rows.distances)
    ]


def decay_records(profiles: Sequence[WordProfile]) -> list[dict[str, Any]]:
    """Cosines with words above, by steps."""
    return [
        {
            "representation": profile.representation,
            "layer": profile.layer,
            "steps": int(steps),
            "n_pairs": int(profile.decay.n_pairs[i]),
            "n_ancestors": int(profile.decay.n_ancestors[i]),
            "mean_cosine": float(profile.decay.cosine[i]),
            "control": float(profile.decay.control[i]),
        }
        for profile in profiles
        if profile.decay is not None
        for i, steps in enumerate(profile.decay.steps)
    ]


def class_records(profiles: Sequence[WordProfile]) -> list[dict[str, Any]]:
    """Every class of every one."""
    return [
        {
            "representation": profile.representation,
            "layer": profile.layer,
            "class": name,
            "n": int(profile.clustering.n[i]),
            "mean_within": float(profile.clustering.within[i]),
            "lift": float(profile.clustering.lift[i]),
            "null_sd": float(profile.clustering.null_sd[i]),
            "p": float(profile.clustering.p[i]),
        }
        for profile in profiles
        if profile.clustering is not None
        for i, name in enumerate(profile.classes)
    ]
