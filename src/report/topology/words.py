"""What is found of clouds, in words: what is beyond the null models, and what is not. No threshold has a unit."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import false_discovery_control

from src.multiple_tests import holm
from src.topology.profile import CloudProfile
from src.topology.protocols.protocol import Protocol

# a diameter that shrinks by more than this share without the farthest points is theirs
SHRINKS = 0.2
# a share of copies that changes H0 and dimensions
MANY_COPIES = 0.02
# a change of a count by outliers beyond this share of it
SENSITIVE = 0.25
_FEWEST_LOOPS = 8  # a share of fewer says nothing
_MOST_NAMES = 6

_PACKAGES = {
    "actopo": "Numbers of actopo 0.1.0 under FROZEN_V5, to compare with published ones. Their errors: the scale is the "
    "diameter, which two points set; counts have no error bars and no null model; clouds of different sizes are not "
    "comparable. The table of clouds has bands and nulls beside them.",
    "todacomm": "Numbers of todacomm 0.1.0, to compare with published ones. Their errors: the infinite bar of H0 "
    "counts as 1 whatever the scale; totals grow with the scale and the number of points, so they compare no layers, "
    "models or datasets; PCA changes the number of loops. The table of clouds has scale-free numbers, bands and nulls "
    "beside them.",
}


def topology_text(profiles: Sequence[CloudProfile], source: str, protocol: Protocol, level: float) -> str:
    """Paragraphs: what stands out of chance, what was measured, what to beware of."""
    n_points = sorted({profile.n_points for profile in profiles})
    of = f"{n_points[0]:,}" if len(n_points) == 1 else f"{n_points[0]:,} to {n_points[-1]:,}"
    clouds = "1 cloud" if len(profiles) == 1 else f"{len(profiles)} clouds"
    first = (
        f"{clouds} of {of} points from {source}, under the protocol {protocol.title} ({protocol.fingerprint}): "
        f"thresholds are fractions of the {_SCALES[protocol.scale]}."
    )
    package = [_PACKAGES[protocol.arithmetic]] if protocol.arithmetic in _PACKAGES else []
    found = " ".join([*_cycles(profiles, level), _loops(profiles, level), *_counts(profiles, level)])
    warnings = " ".join(_warnings(profiles))
    return "\n\n".join(part for part in [found, first, *package, warnings] if part)


_SCALES = {"median": "median distance", "diameter": "diameter", "quantile_99": "99th percentile of distances"}


def _loops(profiles: Sequence[CloudProfile], level: float) -> str:
    tested = [profile for profile in profiles if 1 in profile.tests and np.isfinite(profile.tests[1].decisive).any()]
    if not tested:
        return "No loop was tested."
    having = {profile.name: len(profile.tests[1].significant(level)) for profile in tested}
    having = {name: count for name, count in having.items() if count}
    if not having:
        return (
            f"No cloud has a loop that is more than chance by itself (level {level:g}); that many are counted (β1) "
            "does not make one of them real."
        )
    named = _some([f"{name} ({count})" for name, count in having.items()])
    chance = ""
    if len(tested) > 1:
        chance = f" Of {len(tested)} clouds without structure, {level * len(tested):.2g} would be expected to have one."
    found = f"{len(having)} of {len(tested)} clouds have loops that are more than chance (level {level:g}): {named}."
    return found + chance


def _cycles(profiles: Sequence[CloudProfile], level: float) -> list[str]:
    """In which clouds labels stand around the longest loop in their order, corrected for the clouds looked at."""
    best = {profile.name: profile.cycles[0].p for profile in profiles if profile.cycles and profile.cycles[0]}
    if not any(profile.cycles for profile in profiles):
        return []
    if not best:
        return ["No longest loop reaches every label."]
    adjusted = holm(np.array(list(best.values())))
    found = [f"{name} (p = {p:.2g})" for name, p in zip(best, adjusted, strict=True) if p <= level]
    where = _some(found) if found else "no cloud"
    return [f"The labels' order around the longest loop is more than chance in {where}, corrected for the clouds."]


def _counts(profiles: Sequence[CloudProfile], level: float) -> list[str]:
    """Whether loops are longer together, or more are counted, than under each null; corrected for both and clouds."""
    words = {"gaussian": "a Gaussian of the same covariance", "shuffled_scores": "independent principal components"}
    words |= {"grouped_gaussian": "a Gaussian arrangement of the labels", "random_init": "untrained models"}
    asked = {"h1_total": "longer together", "beta_1": "more in number (β1)"}
    said = []
    for null in dict.fromkeys(null for profile in profiles for null in profile.statistics["h1_total"].nulls):
        p = {
            (statistic, profile.name): profile.statistics[statistic].nulls[null].p
            for statistic in asked
            for profile in profiles
            if null in profile.statistics[statistic].nulls
        }
        known = {key: value for key, value in p.items() if np.isfinite(value)}
        if not known:
            continue
        q = dict(zip(known, false_discovery_control(list(known.values())), strict=True))
        found = []
        for statistic, comparison in asked.items():
            beyond = [name for (of, name), value in q.items() if of == statistic and value <= level]
            found.append(f"{comparison} in {_some(beyond) if beyond else 'no cloud'}")
        said.append(
            f"Than the loops of {words.get(null, null)}, theirs are {' and '.join(found)} "
            f"(one-sided, corrected for {len(known)} tests)."
        )
    return said


def _warnings(profiles: Sequence[CloudProfile]) -> list[str]:
    def names(holds: Callable[[CloudProfile], bool]) -> str:
        return _some([profile.name for profile in profiles if holds(profile)])

    said = []
    if copies := names(lambda profile: profile.n_duplicates > MANY_COPIES * profile.n_points):
        said.append(f"Many points are copies of others in {copies}: they have no topology of their own.")
    if wide := names(lambda profile: _change(profile, "diameter") > SHRINKS):
        said.append(
            f"Without the farthest 1 % of the points, the diameter shrinks by more than {100 * SHRINKS:g} % in {wide}."
        )
    if sensitive := names(_is_sensitive):
        said.append(
            f"β1 changes by more than {100 * SENSITIVE:g} % without the farthest 1 % of the points in {sensitive}."
        )
    return said


def _is_sensitive(profile: CloudProfile) -> bool:
    return profile.statistics["beta_1"].value >= _FEWEST_LOOPS and abs(_change(profile, "beta_1")) > SENSITIVE


def _change(profile: CloudProfile, statistic: str) -> float:
    """The share of a statistic that goes with the farthest points; 0 where nobody knows."""
    if profile.outliers is None or statistic not in profile.outliers.statistics:
        return 0.0
    whole, rest = profile.outliers.statistics[statistic]
    return (whole - rest) / whole if whole > 0 else 0.0


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
