"""Tables of analysis=lexicon for the terminal."""

from collections.abc import Sequence

from src.geometry.words.profiling import WordProfile
from src.report.geometry.lexicon.panels import profile_name, representation_name
from src.report.tables import Cell, Table, finite_or_none, interval_cell

# representations beside each other with intervals on a terminal
_WITH_INTERVALS = 2


def correlation_table(profiles: Sequence[WordProfile]) -> Table:
    """Every representation at every layer, with its chance."""
    rows: list[list[Cell]] = []
    for profile in profiles:
        measured, chance = profile.correlations, profile.pearson_chance
        purity = profile.clustering
        rows.append(
            [
                representation_name(profile.representation),
                profile.layer,
                interval_cell(measured.pearson.value, measured.pearson.low, measured.pearson.high),
                f"{chance.low:.3f}, {chance.high:.3f}",
                finite_or_none(chance.adjusted),
                finite_or_none(measured.spearman.value),
                finite_or_none(measured.partial.value),
                None if purity is None else finite_or_none(purity.purity),
            ]
        )
    expected = next((each.clustering.expected_purity for each in profiles if each.clustering is not None), None)
    purity_note = "" if expected is None else f" Purity of classes expected by chance: {expected:.3f}."
    return Table(
        "Cosine and path similarity",
        ["representation", "layer", "r", "chance", "p", "Spearman", "partial", "purity"],
        rows,
        "r: Pearson over all pairs, with its 95 % jackknife interval over words. chance: 95 % of permuted words; p: "
        "corrected over all rows. partial: r with norms and frequencies held fixed." + purity_note,
    )


def distance_table(best: Sequence[WordProfile]) -> Table:
    """Mean cosines, each pair in one row."""
    columns = ["distance", "pairs", *(profile_name(profile) for profile in best)]
    by_distance = [profile.correlations.by_distance for profile in best]
    rows: list[list[Cell]] = []
    for distance in sorted({int(value) for each in by_distance for value in each.distances}):
        places = [list(each.distances).index(distance) if distance in each.distances else None for each in by_distance]
        pairs = next(int(each.n_pairs[i]) for each, i in zip(by_distance, places, strict=True) if i is not None)
        means: list[Cell] = []
        for each, i in zip(by_distance, places, strict=True):
            if i is None:
                means.append(None)
            elif len(best) > _WITH_INTERVALS:
                means.append(finite_or_none(each.mean[i].value))
            else:
                means.append(interval_cell(each.mean[i].value, each.mean[i].low, each.mean[i].high))
        rows.append([distance, pairs, *means])
    caption = "Each pair is in one row. Intervals: jackknife over words, in by_distance.parquet."
    return Table("Mean cosine by distance", columns, rows, caption)


def decay_tables(best: Sequence[WordProfile]) -> list[Table]:
    """Slopes by steps up, where there are any."""
    rows: list[list[Cell]] = []
    for profile in best:
        if profile.decay is not None:
            for name, slope in (
                ("words above", profile.decay.slope),
                ("control", profile.decay.control_slope),
                ("difference", profile.decay.excess_slope),
            ):
                rows.append(
                    [profile_name(profile), name, interval_cell(slope.value, slope.low, slope.high), slope.n_clusters]
                )
    if not rows:
        return []
    caption = (
        "Change of the cosine for each step up. control: words as deep as the one above that are not above. Intervals: "
        "95 %, clustered by the word above."
    )
    return [Table("Hypernym slopes", ["representation", "cosine with", "slope", "words above"], rows, caption)]


def class_tables(best: Sequence[WordProfile]) -> list[Table]:
    """How classes lie together, where there are any."""
    rows: list[list[Cell]] = []
    for profile in best:
        if profile.clustering is not None:
            found = profile.clustering
            rows.append(
                [
                    profile_name(profile),
                    finite_or_none(found.mean_within),
                    finite_or_none(found.mean_between),
                    finite_or_none(found.silhouette),
                    found.silhouette_p,
                    finite_or_none(found.purity),
                    found.expected_purity,
                    found.purity_p,
                ]
            )
    columns = ["representation", "within", "between", "silhouette", "p", "purity", "expected", "p "]
    return [Table("Classes", columns, rows, "p: of permuted labels, each test alone.")] if rows else []
