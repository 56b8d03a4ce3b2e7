"""What analysis=simplices found, in sentences."""

import math
from collections.abc import Mapping

from src.geometry.simplices.joint import JointStatistics
from src.geometry.simplices.profile import SimplexProfile
from src.report.tables import format_number

_LEVEL = 0.05


def simplex_words(profiles: Mapping[str, SimplexProfile], joint: Mapping[str, JointStatistics], *, tied: bool) -> str:
    """What the spaces have beyond their nulls, what the formula explains, and what two spaces share."""
    sentences = [_beyond_null(name, profile, len(profiles)) for name, profile in profiles.items()]
    sentences += [_formula(name, profile) for name, profile in profiles.items()]
    sentences += [_left_out(name, profile) for name, profile in profiles.items()]
    sentences += [_shared(next(iter(profiles)), name, found, len(joint)) for name, found in joint.items()]
    if tied:
        sentences.append("The output embeddings are the same matrix.")
    return " ".join(filter(None, sentences))


def _beyond_null(name: str, profile: SimplexProfile, n_tests: int) -> str:
    if not profile.volumes.n_valid:
        return (
            f"No {profile.k}-simplex of {_the(name)} has a volume: the points are copies of each other, or lie in "
            "fewer dimensions."
        )
    null, excess = profile.matched, profile.matched.excess
    low, high = format_number(excess.low), format_number(excess.high)
    p = min(1.0, null.p * n_tests)
    found = p <= _LEVEL and (excess.low > 0 or excess.high < 0)
    more = "more" if excess.value > 0 else "less"
    corrected = "" if n_tests == 1 else f", times {n_tests} spaces"
    figures = f"CV {format_number(profile.cv.value)}"
    beyond = f"excess {format_number(excess.value)}, {low} to {high}"
    beside = f"(null {format_number(null.cv.value)}, {beyond}, p {format_number(p)}{corrected})"
    if found:
        return (
            f"Volumes of {profile.k}-simplices of {_the(name)} vary {more} than those of a cloud that has nothing but "
            f"their covariance and norms: {figures} {beside}."
        )
    return (
        f"Volumes of {profile.k}-simplices of {_the(name)} vary as covariance and norms alone make them, as far as can "
        f"be told: {figures} {beside}."
    )


def _formula(name: str, profile: SimplexProfile) -> str:
    if math.isnan(profile.predicted_cv):
        return ""
    return (
        f"The formula for clouds without structure gives {format_number(profile.predicted_cv)} for {_the(name)}, from "
        f"an effective dimension of {profile.effective_dimension:.1f} and a spread of log norms of "
        f"{format_number(profile.log_norm_std)}; a Gaussian of that dimension has {format_number(profile.gaussian_cv)}."
    )


def _left_out(name: str, profile: SimplexProfile) -> str:
    told = []
    if profile.n_non_finite:
        told.append(f"{profile.n_non_finite:,} rows are not finite and were left out")
    if profile.n_copies:
        told.append(f"{profile.n_copies:,} of {profile.n_pool:,} points in the pool are copies of others")
    lost = profile.volumes.n_simplices - profile.volumes.n_valid
    if lost and profile.volumes.n_valid:
        told.append(f"{lost:,} of {profile.volumes.n_simplices:,} simplices have no volume and were left out")
    return f"Of {_the(name)}, {', '.join(told)}." if told else ""


def _shared(first: str, name: str, found: JointStatistics, n_tests: int) -> str:
    r, beyond = found.log_volumes, found.beyond_norms
    if math.isnan(r.r.value):
        return f"No simplex has a volume in both {_the(first)} and {_the(name)}."
    p = min(1.0, r.p * n_tests)
    holds = "go together" if p <= _LEVEL else "do not go together beyond chance"
    return (
        f"Log volumes in {_the(first)} and {_the(name)} {holds}: r {r.r.value:.3f} ({r.r.low:.3f} to {r.r.high:.3f}; "
        f"tokens permuted {r.null_low:.3f} to {r.null_high:.3f}, p {format_number(p)}), and {beyond.r.value:.3f} "
        "beyond what norms explain."
    )


def _the(space: str) -> str:
    return space if space.startswith("layer") else f"the {space}"
