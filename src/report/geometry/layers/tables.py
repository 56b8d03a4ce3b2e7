"""Tables of layers: narrow ones for a terminal, long ones for the report."""

from collections.abc import Sequence

from src.geometry.layers.dimensions import LEVEL, OUTLIER
from src.geometry.layers.norms import SINK
from src.report.geometry.layers.records import Record
from src.report.tables import Cell, Table, finite_or_none, interval_cell
from src.report.token_text import visible

_LONGEST_TOKEN = 24


def site_name(record: Record) -> str:
    """A site, for readers."""
    site: str = record["site"]
    name = {"resid_pre.0": "embeddings", "final_norm": "after final norm"}.get(site, site)
    return f"{record['stack']} {name}" if record["stack"] else name


def estimate(record: Record, name: str) -> Cell:
    """A value with its interval."""
    return interval_cell(record[name], record[f"{name}_low"], record[f"{name}_high"])


def norm_table(records: Sequence[Record], of: str = "states") -> Table:
    """Norms and cosines of each site."""
    rows: list[list[Cell]] = [
        [
            site_name(record),
            estimate(record, "norm_median"),
            estimate(record, "cosine_within"),
            estimate(record, "cosine_across"),
            finite_or_none(record["participation_unbiased"]),
        ]
        for record in records
    ]
    columns = ["site", "median norm", "cosine within", "across", "participation"]
    caption = (
        "Counted tokens. Cosines: means over all pairs of tokens, of one text and of different texts (0: no common "
        "direction). participation: dimensions that share the variance, bias of the sample removed. Brackets: 95 %, "
        "bootstrap over documents."
    )
    return Table(f"Norms and directions of {of}", columns, rows, caption)


def spread_table(records: Sequence[Record]) -> Table:
    """More of norms and participation."""
    rows: list[list[Cell]] = [
        [
            site_name(record),
            estimate(record, "norm_mean"),
            estimate(record, "norm_std"),
            record["norm_quartile_low"],
            record["norm_quartile_high"],
            record["sink_share"],
            estimate(record, "participation"),
            estimate(record, "participation_unbiased"),
            record["half_dimensions"],
        ]
        for record in records
    ]
    columns = ["site", "mean norm", "std", "low quartile", "high quartile", "sinks", "participation", "bias removed"]
    columns.append("dimensions with half")
    caption = (
        f"Counted tokens. sinks: share of them with more than {SINK:g} times the median norm. participation: brackets "
        "from a jackknife over groups of documents. dimensions with half: the fewest that carry half of the squared "
        "norm."
    )
    return Table("Spread of norms and variance", columns, rows, caption)


def dimension_table(records: Sequence[Record], of: str = "states") -> Table:
    """Massive dimensions of each site."""
    rows: list[list[Cell]] = [
        [
            site_name(record),
            estimate(record, "mean_share"),
            record["top_dimension"],
            estimate(record, "top_share"),
            record["random_share"],
            record["n_massive"],
            record["outlier_tokens"],
        ]
        for record in records
    ]
    columns = ["site", "mean's share", "largest", "its share", "chance", "massive", "outliers"]
    expected = max((record["gaussian_outlier_tokens"] for record in records), default=0.0)
    caption = (
        "Shares of the mean squared norm: of the mean vector, and of the dimension with the largest. chance: what no "
        f"dimension of a random basis has, at level {LEVEL:g} for all sites together; massive: dimensions beyond it. "
        f"outliers: share of tokens with an entry beyond {OUTLIER:g} times the token's root mean square (Gaussian: "
        f"{expected:.1g})."
    )
    return Table(f"Dimensions of {of}", columns, rows, caption)


def update_table(updates: Sequence[Record], increments: Sequence[Record]) -> Table | None:
    """What each block adds; None without two consecutive layers and without increments."""
    if not updates and not increments:
        return None
    by_place: dict[tuple[str, int], Record] = {}
    for record in updates:
        by_place.setdefault((record["stack"], record["layer"]), {}).update(record)
    shares = {(record["stack"], record["layer"]): record for record in increments}
    columns = ["block", "|Δ| / |x|", "cos(x, Δ)", "cos(x, y)", "by chance"]
    if shares:
        columns.append("attention")
    rows: list[list[Cell]] = []
    for stack, layer in sorted({*by_place, *shares}):
        record, share = by_place.get((stack, layer)), shares.get((stack, layer))
        names = ("size", "direction", "cosine")
        cells: list[Cell] = [None] * 4
        if record is not None:
            cells = [*(estimate(record, name) for name in names), finite_or_none(record["unrelated_cosine"])]
        row: list[Cell] = [f"{stack} {layer}".strip(), *cells]
        if shares:
            row.append(None if share is None else estimate(share, "attention_share"))
        rows.append(row)
    caption = (
        "x: the stream before a block, y after it, Δ = y - x; means over counted tokens. by chance: the cosine of x "
        "and y if an update of that size were orthogonal to x. cos(x, Δ) of random directions: 0."
    )
    if shares:
        caption += " attention: its share, |attn_out| / (|attn_out| + |mlp_out|)."
    return Table("What blocks change", columns, rows, caption)


def comparison_table(records: Sequence[Record], first: str, second: str) -> Table:
    """The sites of both stacks that have the same name."""
    has_cosine = "cosine" in records[0]
    rows: list[list[Cell]] = []
    for record in records:
        if record["first"] == record["second"]:
            cells: list[Cell] = [site_name({"stack": "", "site": record["first"]})]
            if has_cosine:
                cells += [estimate(record, "cosine"), estimate(record, "shuffled_cosine")]
            rows.append([*cells, estimate(record, "cka"), estimate(record, "shuffled_cka")])
    cosines = ["cosine", "shuffled"] if has_cosine else []
    caption = (
        "The same token of the same text in both stacks. shuffled: other tokens of the same text in its place. CKA: "
        "linear, unbiased HSIC (0 for unrelated rows)."
    )
    if not has_cosine:
        caption += " There is no cosine between stacks of different width."
    return Table(f"{first} against {second}", ["site", *cosines, "CKA", "CKA, shuffled"], rows, caption)


def left_out_table(records: Sequence[Record]) -> Table:
    """Norms of tokens that are kept out of statistics."""
    rows: list[list[Cell]] = [
        [site_name(record), record["reason"], record["n"], record["mean"], record["std"], record["ratio"]]
        for record in records
    ]
    columns = ["site", "reason", "tokens", "mean norm", "std", "to the median"]
    return Table("Tokens left out", columns, rows, "to the median: mean norm to the counted tokens' median norm.")


def largest_table(records: Sequence[Record]) -> Table:
    """The counted tokens with the largest norms."""
    rows: list[list[Cell]] = [
        [
            site_name(record),
            visible(record["token"], _LONGEST_TOKEN),
            record["position"],
            record["norm"],
            record["ratio"],
        ]
        for record in records
    ]
    columns = ["site", "token", "position", "norm", "to the median"]
    caption = f"Counted tokens. Beyond {SINK:g} times the median a token is called a sink."
    return Table("Largest norms", columns, rows, caption)
