"""Embeddings in words: what was found, beside what chance gives."""

import math
from collections.abc import Sequence

from src.geometry.embedding.profile import EmbeddingProfile, TableProfile
from src.report.token_text import one_line, visible

# of adjusted p-values
LEVEL = 0.05
_MOST_NAMES = 6


def embedding_text(profile: EmbeddingProfile) -> str:
    """Paragraphs; the first sentence is the finding."""
    first = profile.tables[0]
    paragraphs = [
        " ".join([_space(profile, first), *_orders(profile), *_groups(profile)]),
        " ".join([_rows(profile), *_untrained(profile), *_pairing(profile), *_positions(profile), *_sampled(profile)]),
    ]
    return "\n\n".join(paragraphs)


def isotropic_participation(table: TableProfile) -> float:
    """Participation ratio of as many rows of independent normal numbers: 1 / (1 / d + 1 / n) (spec A4)."""
    return 1 / (1 / table.width + 1 / table.cosine.n_rows) if table.cosine.n_rows else math.nan


def _space(profile: EmbeddingProfile, table: TableProfile) -> str:
    share = table.spectrum.participation / table.width
    isotropic = isotropic_participation(table) / table.width
    return (
        f"The {len(profile.ids):,} rows of {profile.model} spread over {table.spectrum.participation:.1f} of "
        f"{table.width} dimensions (participation ratio {share:.3f} d; {isotropic:.3f} d if isotropic), at"
        f" a mean cosine of {table.cosine.mean:.3f} with a standard deviation of "
        f"{table.cosine.std:.3f} (isotropic: 0 and {1 / math.sqrt(table.width):.3f})."
    )


def _orders(profile: EmbeddingProfile) -> list[str]:
    if not profile.ordered:
        return ["No ordered set has enough words that are single tokens."]
    named = {
        each.found.ordered.name: f"{one_line(each.found.ordered.name, 30)} (r = {each.statistics.pearson:.2f}, p = "
        f"{each.adjusted_p:.2g})"
        for each in profile.ordered
    }
    inside = [named[each.found.ordered.name] for each in profile.ordered if each.adjusted_p <= LEVEL]
    outside = [named[each.found.ordered.name] for each in profile.ordered if not each.adjusted_p <= LEVEL]
    said = f"Neighbours in their order are neighbours in space: {_some(inside)}" if inside else ""
    missed = f"not beyond chance: {_some(outside)}" if outside else ""
    joined = "; ".join(part for part in (said, missed) if part)
    return [joined[0].upper() + joined[1:] + f" (relabelled words, Holm over {len(profile.ordered)} sets)."]


def _groups(profile: EmbeddingProfile) -> list[str]:
    found = profile.categories
    if found is None:
        return []
    close = sum(p <= LEVEL for p in found.adjusted_p)
    tested = sum(math.isfinite(p) for p in found.adjusted_p)
    outside = [one_line(each.name, 30) for each, p in zip(found.statistics, found.adjusted_p, strict=True) if p > LEVEL]
    apart = f" (not {_some(outside)})" if outside and close else ""
    centred = sum(p <= LEVEL for p in found.adjusted_centred_p)
    purity = found.purity
    return [
        f"{close} of {tested} categories are closer than random words of like norm and rank{apart}; less the "
        f"mean row it is {centred} (Holm). For {100 * purity.share:.0f} % of their {purity.n_words} words the nearest "
        f"one is of the same category ({100 * purity.by_chance:.0f} % by chance, p = {purity.p:.2g})."
    ]


def _rows(profile: EmbeddingProfile) -> str:
    padding = f", and {profile.n_padding:,} rows that no token has" if profile.n_padding else ""
    left_out = profile.n_rows - len(profile.ids)
    kept = f"; statistics leave {left_out:,} of them out" if left_out else ""
    return (
        f"The table has {profile.n_rows:,} rows: {profile.n_tokens:,} tokens, {profile.n_special:,} of them "
        f"special{padding}{kept}."
    )


def _untrained(profile: EmbeddingProfile) -> list[str]:
    found = profile.untrained
    places = [place for place, mark in enumerate(found.untrained) if mark]
    if not places:
        return ["No token's row looks untrained (a copy of another row, zero, or like the padding rows)."]
    texts = [visible(profile.text(profile.token_ids[place]), 20) for place in places]
    whose = "1 token's row looks" if len(places) == 1 else f"{len(places):,} tokens' rows look"
    return [f"{whose} untrained (copies, zeros, or like the padding rows): {_some(texts)}."]


def _pairing(profile: EmbeddingProfile) -> list[str]:
    if profile.tied:
        return ["Embedding and unembedding are one table."]
    found = profile.input_output
    if found is None:
        return []
    equal = "hold the same numbers in two places" if found.equal else "differ"
    return [
        f"Embedding and unembedding {equal}: the mean cosine of a token's two rows is {found.cosines.mean():.3f} "
        f"(of different tokens' rows {found.unpaired:.3f})."
    ]


def _positions(profile: EmbeddingProfile) -> list[str]:
    found = profile.positions
    if found is None:
        return []
    return [
        f"The {found.n_positions:,} learned positions have an r of {found.pearson:.2f} between distance and cosine (p "
        f"= {found.p:.2g}, shuffled positions)."
    ]


def _sampled(profile: EmbeddingProfile) -> list[str]:
    said = []
    table = profile.tables[0]
    if table.histogram.rank_error > 0:
        said.append(
            f"Percentiles of cosines come from {table.histogram.n_rows:,} rows; their ranks are off by at most "
            f"{table.histogram.rank_error:.2g} percent points (95 %)."
        )
    if table.distances.n_rows < len(profile.ids):
        said.append(f"Distances come from {table.distances.n_rows:,} rows.")
    return said


def overview_caption(profile: EmbeddingProfile) -> str:
    """What the figure of all panels shows."""
    said = [
        "Norms of the rows; cosines of all pairs, with what isotropic rows would have (dashed); eigenvalues and "
        "cumulative variance of the rows less their mean, with the participation ratio (PR) as a line."
    ]
    if profile.ordered:
        said.append(
            "Ordered sets: cosines of their words in order, so that an order shows as a band along the diagonal."
        )
    if profile.categories is not None:
        said.append("Categories: mean cosine of their words, before the middle 95 % of matched random sets (grey).")
    if profile.positions is not None:
        said.append("Positions: mean cosine by distance.")
    return " ".join(said)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
