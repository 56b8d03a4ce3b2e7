"""What was found of an alignment, in words: every number beside what it must beat."""

from src.report.geometry.alignment.records import OCCURRENCES, ONE_BY_ONE, TOGETHER, Aligned, null_range

_LEVEL = 0.05
_NAMES = {
    "orthogonal": "a rotation",
    "scaled": "a scaled rotation",
    "ridge": "ridge regression",
    "cca": "prediction by canonical correlations",
}


def alignment_text(found: Aligned) -> str:
    """The finding first; then rotations, relations, ordered sets; then what to beware of."""
    paragraphs = [
        " ".join([_finding(found), *_others(found)]),
        " ".join([_retrieval(found), _relations(found)]),
        " ".join(_ordered(found)),
        " ".join([_volumes(found), *_cautions(found)]).strip(),
        found.pairing,
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _finding(found: Aligned) -> str:
    best, alignment = found.best, found.alignment
    explained, cosine = best.intervals["explained"], best.intervals["cosine"]
    counts = alignment.counts
    low, high = (_plain(float(end or 0)) for end in null_range(best.null["cosine"])[1:])
    better = max(best.q.values()) <= _LEVEL and explained.value > 0
    verdict = "goes over to" if better else "does not go over to"
    return (
        f"{found.names[0]} {verdict} {found.names[1]}: {_NAMES[alignment.best]}, fitted on {counts['train']:,} "
        "anchors, has "
        f"R2 {_in(explained)} and mean cosine {_in(cosine)} on {counts['test']:,} held-out tokens; fitted on shuffled "
        f"pairs, a cosine of {low} to {high} (q = {best.q['cosine']:.2g}, of R2 {best.q['explained']:.2g})."
    )


def _others(found: Aligned) -> list[str]:
    maps, said = found.alignment.maps, []
    rotation = maps.get("scaled") or maps.get("orthogonal")
    if rotation is not None and found.alignment.best != rotation.map.name:
        retained = rotation.map.settings["retained"]
        width = f", seeing {retained:.0%} of the source's variance," if retained < 1 else ""
        said.append(
            f"{_NAMES[rotation.map.name].capitalize()}{width} has R2 {_in(rotation.intervals['explained'])}, cosine "
            f"{_in(rotation.intervals['cosine'])}."
        )
    if "identity" in maps:
        said.append(f"No map at all, axis for axis, has cosine {_in(maps['identity'].intervals['cosine'])}.")
    components = maps["components"].intervals["cosine"]
    said.append(f"Component for component by rank, the cosine is {_in(components)}.")
    return said


def _retrieval(found: Aligned) -> str:
    intervals, alignment = found.best.intervals, found.alignment
    return (
        f"Its own token is nearest of {alignment.n_candidates:,} by cosine for {_share(intervals['p_at_1'])} (among "
        "the "
        f"first ten: {_share(intervals['p_at_10'])}), by CSLS for {_share(intervals['csls_p_at_1'])} (first ten: "
        f"{_share(intervals['csls_p_at_10'])}); chance is {alignment.chance(1):.2%} and {alignment.chance(10):.2%}."
    )


def _relations(found: Aligned) -> str:
    raw, centred = found.alignment.raw, found.alignment.centred
    r, cka = centred.pearson, centred.debiased_cka
    return (
        f"Without any map, the cosines of all pairs of {raw.n_tokens:,} tokens agree with r = {_in(r)} once both "
        "spaces "
        f"are centred (as they are: {_in(raw.pearson)}; shuffled: 0 ± {r.null_sd:.1g}, p = {r.p:.2g}); debiased CKA is "
        f"{_in(cka)} (shuffled: 0 ± {cka.null_sd:.1g})."
    )


def _ordered(found: Aligned) -> list[str]:
    if not found.ordered:
        return ["No ordered set (digits, weekdays, ...) has enough words among the pairs."]
    said = []
    for name in dict.fromkeys(each.agreement.name for each in found.ordered):
        ways = [each for each in found.ordered if each.agreement.name == name]
        homes = [
            f"{each.agreement.at_home} of {len(each.agreement.tokens)}{_WAYS[each.kept_out]} (q = "
            f"{each.q['at_home']:.2g})"
            for each in ways
        ]
        first = ways[0]
        said.append(
            f"{name.capitalize()}: nearest to their own row among the set's are {' and '.join(homes)}; neighbours stay "
            f"alike with r = {_plain(first.agreement.steps_predicted)} of steps and cosine (true rows: "
            f"{_plain(first.agreement.steps_true)}; q = {first.q['steps']:.2g})."
        )
    new = (
        "The first number: no map was fitted on any word of any set; the second: each word by a map fitted on all "
        "others."
        if found.ordered_are_new
        else "Words are means over test documents; the same words stood in the documents that maps were fitted on."
    )
    return [*said, new, "q: relabelled within the set, corrected over sets and tests."]


_WAYS = {TOGETHER: "", ONE_BY_ONE: " if the others are known", OCCURRENCES: ""}


def _volumes(found: Aligned) -> str:
    if found.volumes is None:
        return ""
    logs, beyond = found.volumes.log_volumes, found.volumes.beyond_norms
    return (
        f"Volumes of {found.volumes.n_joint:,} simplices of five held-out tokens, mapped and true, agree with r = "
        f"{_plain(logs.r.value)} of log V (permuted: {_plain(logs.null_low)} to {_plain(logs.null_high)}), "
        f"{_plain(beyond.r.value)} beyond what norms explain."
    )


def _cautions(found: Aligned) -> list[str]:
    best, said = found.best, []
    said.append(
        f"On its own anchors the mean cosine is {best.anchor_cosine:.2f}: that is no evidence, for unrelated spaces "
        "have a "
        "positive one too."
    )
    if found.widths[0] < found.widths[1]:
        said.append(
            f"The target is wider ({found.widths[1]} against {found.widths[0]} dimensions): the source is turned "
            "into it as if "
            f"padded with zeros, and no linear map reaches more than R2 {found.alignment.ceiling:.2f} of the held-out "
            "tokens; aligning the other way loses nothing to that."
        )
    if found.left_out:
        said.append(f"Left out are {' and '.join(found.left_out)}: there are fewer anchors than dimensions.")
    if found.alignment.n_units < 20:
        said.append(f"Intervals rest on {found.alignment.n_units} {found.unit} alone, and are too narrow.")
    return said


def _in(interval: object) -> str:
    value, low, high = (_plain(float(getattr(interval, name))) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _plain(value: float) -> str:
    """Two decimals, and no minus sign before a zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def _share(interval: object) -> str:
    value, low, high = (100 * float(getattr(interval, name)) for name in ("value", "low", "high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"
