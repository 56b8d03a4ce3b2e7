"""Embeddings as tables."""

import math
from collections.abc import Callable

import numpy as np

from src.geometry.embedding.profile import EmbeddingProfile, TableProfile
from src.geometry.percentiles import PERCENTILES
from src.report.geometry.embeddings.words import LEVEL, isotropic_participation
from src.report.tables import Cell, Table, finite_or_none, interval_cell
from src.report.token_text import one_line, visible

_MOST_UNTRAINED = 200
_MOST_SPECIAL = 50
_TOKEN_WIDTH = 24


def rows_table(profile: EmbeddingProfile) -> Table:
    """What the table's rows are, and how large the model is."""
    tied = "one table" if profile.tied else "two tables" if profile.tables[1:] else "no unembedding"
    untrained = profile.untrained
    rows: list[list[Cell]] = [
        ["parameters", profile.census.total, ""],
        ["rows of the embedding", profile.n_rows, ""],
        ["tokens", profile.n_tokens, "rows of the tokenizer's vocabulary"],
        ["padding rows", profile.n_padding, "that no token has; never counted unless embeddings.rows=all"],
        ["special tokens", profile.n_special, "stand for no text"],
        ["rows counted", len(profile.ids), "in all statistics below"],
        ["look untrained", int(untrained.untrained.sum()), "copies, zeros, cosine to mean padding row > 0.99"],
        ["lowest 1 % of norms", int(untrained.low_norm.sum()), "candidates by construction"],
        ["input and output", tied, ""],
        *([name.replace("_", " "), size, "config.json"] for name, size in profile.sizes.items()),
    ]
    return Table("Rows", ["", "count", "what it is"], rows)


def table_of_numbers(profile: EmbeddingProfile) -> Table:
    """Norms, cosines, spectrum and distances of each table, beside isotropic rows."""

    def line(name: str, value: Callable[[TableProfile], Cell], null: Cell = None) -> list[Cell]:
        return [name, *(value(table) for table in profile.tables), null]

    first = profile.tables[0]
    error = {"mean": "mean_error", "std": "std_error", "cv": "cv_error"}

    def distance(table: TableProfile, name: str) -> Cell:
        value, half = getattr(table.distances, name), 1.96 * getattr(table.distances, error[name])
        return interval_cell(value, value - half, value + half) if half > 0 else finite_or_none(value)

    rows = [
        line("norm: mean", lambda table: table.norms.mean),
        line("norm: standard deviation", lambda table: table.norms.std),
        line("norm: CV", lambda table: finite_or_none(table.norms.cv)),
        line("log norm: standard deviation", lambda table: finite_or_none(table.norms.log_std)),
        line("centred norm: CV", lambda table: finite_or_none(table.centred_norms.cv)),
        line("log centred norm: standard deviation", lambda table: finite_or_none(table.centred_norms.log_std)),
        line("mean row: share of mean square", lambda table: finite_or_none(table.mean_share), 1 / len(profile.ids)),
        line("cosine: mean", lambda table: finite_or_none(table.cosine.mean), 0.0),
        line("cosine: standard deviation", lambda table: finite_or_none(table.cosine.std), 1 / math.sqrt(first.width)),
        line("cosine: median", lambda table: finite_or_none(table.histogram.percentile(50)), 0.0),
        line("centred cosine: mean", lambda table: finite_or_none(table.centred_cosine_mean)),
        line(
            "participation ratio", lambda table: finite_or_none(table.spectrum.participation),
            isotropic_participation(first),
        ),
        line(
            "participation ratio / d", lambda table: finite_or_none(table.spectrum.participation / table.width),
            isotropic_participation(first) / first.width,
        ),
        *(
            line(f"dimensions for {percent} % of variance", lambda table, p=percent: table.spectrum.dimensions[p])
            for percent in first.spectrum.dimensions
        ),
        line("distance: root mean square", lambda table: finite_or_none(math.sqrt(table.mean_squared_distance))),
        line("distance: mean", lambda table: distance(table, "mean")),
        line("distance: CV", lambda table: distance(table, "cv")),
    ]  # fmt: skip
    caption = (
        "Over all rows and all pairs exactly, but for distances (mean, CV) and medians where the text says so. "
        "Isotropic: as many rows of independent normal numbers."
    )
    names = ["output" if table.name == "output" else "input" for table in profile.tables]
    return Table("Norms, cosines, dimensions", ["", *names, "isotropic"], rows, caption)


def ordered_table(profile: EmbeddingProfile) -> Table | None:
    """Ordered sets, and what relabelled words give."""
    rows: list[list[Cell]] = []
    for each in profile.ordered:
        found, statistics = each.found, each.statistics
        rows.append(
            [
                one_line(found.ordered.name, 30),
                "circle" if found.ordered.cycle else "line",
                f"{len(found.places)} of {len(found.ordered.words)}",
                visible(found.spelling, 12),
                finite_or_none(statistics.pearson),
                finite_or_none(statistics.null_std),
                finite_or_none(each.adjusted_p),
                finite_or_none(statistics.gap),
                f"{100 * statistics.nearest:.0f} % ({100 * statistics.nearest_by_chance:.0f} %)",
            ]
        )
    for found in profile.too_short:
        count = f"{len(found.places)} of {len(found.ordered.words)}"
        rows.append([one_line(found.ordered.name, 30), "circle" if found.ordered.cycle else "line", count, *[None] * 6])
    caption = (
        "r: of the distance in the order and the cosine, over pairs of words; p: one-sided, relabelled words, Holm "
        "over the sets. gap: cosine of neighbours less that of others. nearest: words whose nearest word of the set "
        "stands beside them (by chance). All words of a set are spelled alike; a word of several tokens is not found."
    )
    columns = ["set", "on a", "found", "spelled", "r", "r by chance (sd)", "p", "gap", "nearest"]
    return Table("Ordered sets", columns, rows, caption) if rows else None


def category_table(profile: EmbeddingProfile) -> Table | None:
    """Categories, and what matched sets give."""
    found = profile.categories
    if found is None:
        return None
    rows: list[list[Cell]] = [
        [
            one_line(each.name, 30), each.n_words, each.cosine, each.lift, finite_or_none(each.matched),
            finite_or_none(each.z), finite_or_none(p), each.centred_lift, finite_or_none(each.centred_z),
        ]
        for each, p in sorted(
            zip(found.statistics, found.adjusted_p, strict=True), key=lambda pair: -np.nan_to_num(pair[0].z)
        )
    ]  # fmt: skip
    caption = (
        "cosine: mean over pairs of the category's words; lift: above the mean of all pairs; matched: mean over random "
        "sets of as many words of like norm and rank in the vocabulary; z among these; p: one-sided, Holm (beyond "
        f"chance at {LEVEL:g}). centred: of rows less the mean of all rows."
    )
    columns = ["category", "words", "cosine", "lift", "matched", "z", "p", "centred lift", "centred z"]
    return Table("Categories", columns, rows, caption)


def input_output_table(profile: EmbeddingProfile) -> Table | None:
    """A token's two rows."""
    found = profile.input_output
    if found is None:
        return None
    lowest, highest = (
        visible(profile.text(profile.ids[place]), _TOKEN_WIDTH)
        for place in (found.cosines.argmin(), found.cosines.argmax())
    )
    rows: list[list[Cell]] = [
        ["cosine of a token's two rows: mean", float(found.cosines.mean()), ""],
        ["standard deviation", float(found.cosines.std()), ""],
        ["least", float(found.cosines.min()), lowest],
        ["greatest", float(found.cosines.max()), highest],
        ["of different tokens' rows: mean", finite_or_none(found.unpaired), "the null"],
        ["Frobenius norm of the input", found.input_norm, ""],
        ["of the output", found.output_norm, ""],
        ["of the difference", found.difference, ""],
        ["difference / input", finite_or_none(found.relative), ""],
    ]
    return Table("Embedding and unembedding", ["", "value", "token"], rows)


def position_table(profile: EmbeddingProfile) -> Table | None:
    """Learned absolute positions."""
    found = profile.positions
    if found is None:
        return None
    rows: list[list[Cell]] = [
        ["positions", found.n_positions],
        ["norm: mean", found.norms.mean],
        ["norm: CV", finite_or_none(found.norms.cv)],
        ["norm of position 0", float(found.norm_by_position[0])],
        ["participation ratio", finite_or_none(found.participation)],
        ["r of |i - j| and cosine", finite_or_none(found.pearson)],
        [f"p ({found.n_draws} shuffled orders)", finite_or_none(found.p)],
        *(
            [f"mean cosine at distance {offset}", float(found.cosine_by_offset[offset])]
            for offset in (1, 2, 8, 64, 512)
            if offset < found.n_positions
        ),
    ]  # fmt: skip
    return Table("Learned positions", ["", "value"], rows)


def percentile_table(profile: EmbeddingProfile) -> Table:
    """P7 of norms, cosines and distances."""
    rows: list[list[Cell]] = []
    for table in profile.tables:
        cosines = table.histogram.percentiles()
        rows += [
            [f"{table.name}: norm", table.norms.minimum, *table.norms.percentiles.values(), table.norms.maximum],
            [
                f"{table.name}: centred norm", table.centred_norms.minimum, *table.centred_norms.percentiles.values(),
                table.centred_norms.maximum,
            ],
            [f"{table.name}: cosine", None, *(_with_ends(cosines[each]) for each in PERCENTILES), None],
            [
                f"{table.name}: distance", table.distances.minimum, *table.distances.percentiles.values(),
                table.distances.maximum,
            ],
        ]  # fmt: skip
    lowest, highest = profile.tables[0].norms.lowest, profile.tables[0].norms.highest
    ends = [visible(profile.text(profile.ids[place]), _TOKEN_WIDTH) for place in (lowest, highest)]
    caption = (
        f"Percentiles. Cosines are right to {profile.tables[0].histogram.error:.1g}. Of the input rows, {ends[0]} is "
        f"the shortest and {ends[1]} the longest."
    )
    return Table("Percentiles", ["", "min", *(f"{each} %" for each in PERCENTILES), "max"], rows, caption)


def _with_ends(percentile: tuple[float, float, float]) -> Cell:
    value, low, high = percentile
    return interval_cell(value, low, high) if low < high else finite_or_none(value)


def special_table(profile: EmbeddingProfile) -> Table:
    """Special tokens: norms, and cosines to each other."""
    special = profile.special
    others = special.cosines.copy()
    np.fill_diagonal(others, np.nan)
    marks = {token: place for place, token in enumerate(profile.token_ids.tolist())}
    rows: list[list[Cell]] = []
    for place, token in enumerate(special.ids[:_MOST_SPECIAL].tolist()):
        row = others[place]
        known = np.isfinite(row).any()
        nearest = visible(special.texts[int(np.nanargmax(row))], _TOKEN_WIDTH) if known else None
        mark = bool(profile.untrained.untrained[marks[token]]) if token in marks else False
        rows.append(
            [
                visible(special.texts[place], _TOKEN_WIDTH), token, float(special.norms[place]),
                float(np.nanmean(row)) if known else None, float(np.nanmax(row)) if known else None, nearest, mark,
            ]
        )  # fmt: skip
    columns = ["token", "id", "norm", "mean cosine to others", "greatest", "to", "looks untrained"]
    left_out = f" The first {_MOST_SPECIAL} of {profile.n_special:,}." if profile.n_special > _MOST_SPECIAL else ""
    return Table("Special tokens", columns, rows, f"Cosines among special tokens.{left_out}")


def untrained_table(profile: EmbeddingProfile) -> Table:
    """Tokens whose rows look untrained."""
    found = profile.untrained
    places = np.flatnonzero(found.untrained)
    rows: list[list[Cell]] = [
        [
            visible(profile.text(int(profile.token_ids[place])), _TOKEN_WIDTH), int(profile.token_ids[place]),
            bool(found.like_padding[place]), bool(found.copy[place]), bool(found.zero[place]),
            bool(found.low_norm[place]),
        ]
        for place in places[:_MOST_UNTRAINED].tolist()
    ]  # fmt: skip
    how = (
        f"Padding rows have a mean cosine of {found.padding_cosine:.3f} to their mean."
        if math.isfinite(found.padding_cosine)
        else "There are no padding rows to compare with."
    )
    left_out = f" The first {_MOST_UNTRAINED} of {len(places):,}." if len(places) > _MOST_UNTRAINED else ""
    columns = ["token", "id", "like padding", "copy of another row", "zero", "low norm"]
    return Table("Rows that look untrained", columns, rows, how + left_out)


def census_table(profile: EmbeddingProfile) -> Table:
    """Parameters by the first two parts of their names."""
    total = profile.census.total
    rows: list[list[Cell]] = [[name, count, 100 * count / total] for name, count in profile.census.by_module.items()]
    tied = "; ".join(f"{alias} is {name}" for alias, name in profile.census.tied.items())
    return Table("Parameters", ["module", "parameters", "%"], rows, f"Tied: {tied}." if tied else "")


def relative_bias_tables(profile: EmbeddingProfile) -> list[Table]:
    """Of each stack, head by head."""
    tables = []
    for bias in profile.biases:
        values = bias.table
        rows: list[list[Cell]] = [
            [head, *map(float, (bias.head_means[head], bias.head_stds[head], bias.head_ranges[head]))]
            for head in range(values.shape[1])
        ]
        caption = (
            f"{values.shape[0]} buckets: mean {values.mean():.3f}, standard deviation {values.std():.3f}, "
            f"{values.min():.3f} to {values.max():.3f}. What the heads do with it: analysis=weights."
        )
        title = f"Relative position biases: {bias.name.split('.')[0]}"
        tables.append(Table(title, ["head", "mean", "standard deviation", "range"], rows, caption))
    return tables
