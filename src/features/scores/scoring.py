"""One score for each feature out of its metrics, by weights that a user may choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TERMS = ("coherence", "focus", "causal", "redundancy", "dead")
FEWEST_CANDIDATES = 32


@dataclass(frozen=True)
class Weights:
    """Weights of the terms; below 0: the less of it the better."""

    coherence: float
    focus: float
    causal: float
    redundancy: float
    dead: float


@dataclass(frozen=True)
class Preset:
    """How metrics become a score.

    normalisation: minmax = (x - min) / (max - min + 1e-8) over features, 0 where the range is below 1e-8; quantile =
    the mean rank among features, from 0 to 1. missing: what an unknown metric counts; zero = 0 after normalisation;
    renormalise = nothing, and the weights of the others are scaled up. effect: the causal term, per counted
    token of the text or per firing of the feature. first: weights of the score that chooses candidates for ablation.
    final: of the score itself.
    """

    normalisation: Literal["minmax", "quantile"]
    missing: Literal["zero", "renormalise"]
    effect: Literal["per_token", "per_firing"]
    first: Weights
    final: Weights


def minmax(values: Float[Tensor, " feature"]) -> Float[Tensor, " feature"]:
    """(x - min) / (max - min + 1e-8) over what is not NaN; zeros where the range is below 1e-8 (spec 1.4)."""
    known = values[~values.isnan()]
    if not len(known) or known.max() - known.min() < 1e-8:
        return torch.where(values.isnan(), values, 0)
    return (values - known.min()) / (known.max() - known.min() + 1e-8)


def quantile(values: Float[Tensor, " feature"]) -> Float[Tensor, " feature"]:
    """The rank of each value among what is not NaN, from 0 to 1, ties at their mean rank; 1/2 for a single value."""
    found, known = values.clone(), ~values.isnan()
    n = int(known.sum())
    if n:
        _, place, counts = values[known].unique(return_inverse=True, return_counts=True)
        mean_rank = counts.cumsum(0) - (counts + 1) / 2
        found[known] = (mean_rank[place] / (n - 1) if n > 1 else torch.full((1,), 0.5)).to(values)
    return found


def normalised_terms(
    metrics: Mapping[str, Float[Tensor, " feature"]], preset: Preset
) -> dict[str, Float[Tensor, " feature"]]:
    """The terms of a score, from 0 to 1 but for what is missing (NaN).

    metrics: coherence, focus, redundancy, causal (below 0 counts as 0) and rate (from which dead is made: the most
    frequent feature has 0). Any may hold NaN.
    """
    of = minmax if preset.normalisation == "minmax" else quantile
    raw = {
        "coherence": metrics["coherence"],
        "focus": metrics["focus"],
        "causal": metrics["causal"].clamp_min(0),
        "redundancy": metrics["redundancy"],
        "dead": -metrics["rate"],
    }
    return {name: of(values.double()) for name, values in raw.items()}


def composite(
    terms: Mapping[str, Float[Tensor, " feature"]], weights: Weights, missing: Literal["zero", "renormalise"]
) -> Float[Tensor, " feature"]:
    """One number for each feature.

    missing=zero: the weighted sum of the terms. missing=renormalise: the weighted mean of the known ones, of which a
    term with a weight below 0 counts as 1 - term: from 0 to 1, NaN where nothing is known.
    """
    total = torch.zeros_like(terms["coherence"])
    size = torch.zeros_like(total)
    for name in TERMS:
        weight, term = getattr(weights, name), terms[name]
        if missing == "zero":
            total += weight * term.nan_to_num(nan=0.0)
        elif weight:
            known = ~term.isnan()
            total += torch.where(known, abs(weight) * (term if weight > 0 else 1 - term), 0)
            size += abs(weight) * known
    return total if missing == "zero" else total / size


def best(
    scores: Float[Tensor, " feature"], eligible: Bool[Tensor, " feature"], percent: float, at_least: int = 1
) -> Int[Tensor, " chosen"]:
    """The best eligible features, best first: a percentage of all features, but at_least so many, where there are.

    Of equal scores the feature of the lower index comes first.
    """
    wanted = max(at_least, int(len(scores) * percent / 100))
    ranked = scores.masked_fill(~eligible | scores.isnan(), -torch.inf).argsort(descending=True, stable=True)
    return ranked[: min(wanted, int((eligible & ~scores.isnan()).sum()))]


def rank_correlation(one: Float[Tensor, " item"], other: Float[Tensor, " item"]) -> float:
    """Spearman's correlation over the items that are known in both; NaN for fewer than 3, or where one is constant."""
    known = ~(one.isnan() | other.isnan())
    if int(known.sum()) < 3:
        return float("nan")
    return float(torch.corrcoef(torch.stack([quantile(one[known].double()), quantile(other[known].double())]))[0, 1])
