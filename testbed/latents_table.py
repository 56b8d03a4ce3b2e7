"""The table of known latents and the features that are them: Markdown, JSON and a figure (see `latents.py`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE / "latents.json"
TABLE = HERE.parent / "docs" / "testbed_latents.md"
FIGURE = HERE / "figures" / "latents.png"
FOUND, PARTLY = 0.8, 0.5
LISTED = 5  # best-scoring features of each layer that are listed


@dataclass(frozen=True)
class Named:
    """A feature, the latent that it is best, and the single word; F1 of the half that nothing was chosen on."""

    layer: int
    feature: int
    group: str
    latent: str
    f1: float
    word: str
    word_f1: float


@dataclass(frozen=True)
class Ranked:
    """Where score_features.py puts a feature: 1 = the best of the layer's; is_top: among its top_percent."""

    rank: int
    of: int
    is_top: bool


@dataclass(frozen=True)
class Row:
    """The feature that is a latent best. F1 and support are of the half that nothing was chosen on.

    threshold: the feature fires above it. low, high: 95 % interval. chance, token, dimension: F1 of the baselines.
    features, f1_by_layer: the feature chosen at each layer, and its F1.
    """

    group: str
    latent: str
    tokens: int
    documents: int
    layer: int
    feature: int
    threshold: float
    f1: float
    low: float
    high: float
    chance: float
    token: float
    dimension: float
    features: dict[int, int]
    f1_by_layer: dict[int, float]

    @property
    def is_more_than_trivial(self) -> bool:
        """Whether the interval lies above the best single token and the best single dimension or neuron."""
        return self.low > max(self.token, self.dimension)

    @property
    def verdict(self) -> str:
        """found, partly or not; never found where the interval reaches down to what the search alone finds."""
        if self.low <= self.chance or self.f1 < PARTLY:
            return "not"
        return "found" if self.f1 >= FOUND else "partly"


def groups(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each group, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def summary(rows: Sequence[Row]) -> str:
    """A Markdown table with a row for each group."""
    lines = [
        "| group | latents | found | partly | not | above token and dimension | features of their own "
        "| median F1 | chance | token | dimension | best layers |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for group, members in groups(rows).items():
        verdicts = [row.verdict for row in members]
        own = len({(row.layer, row.feature) for row in members})
        medians = [_median(getattr(row, name) for row in members) for name in ("f1", "chance", "token", "dimension")]
        layers = ", ".join(str(layer) for layer in sorted({row.layer for row in members}))
        cells = [
            *(verdicts.count(verdict) for verdict in ("found", "partly", "not")),
            sum(row.is_more_than_trivial for row in members),
            own,
            *(f"{value:.2f}" for value in medians),
            layers,
        ]
        lines.append(f"| {group} | {len(members)} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def tables(rows: Sequence[Row]) -> str:
    """A Markdown table for each group."""
    parts = []
    for group, members in groups(rows).items():
        parts += [
            f"### {group[0].upper()}{group[1:]}\n",
            "| latent | layer.feature | F1 | 95 % interval | chance | single token | dimension | support | |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        parts += [
            f"| {row.latent} | {row.layer}.{row.feature} | {row.f1:.2f} | {row.low:.2f} to {row.high:.2f} | "
            f"{row.chance:.2f} | {row.token:.2f} | {row.dimension:.2f} | {row.tokens} in {row.documents} | "
            f"{row.verdict} |"
            for row in members
        ]
        parts.append("")
    return "\n".join(parts)


def missing(rows: Sequence[Row]) -> str:
    """A Markdown list of the latents that no feature is, by group."""
    lines = []
    for group, members in groups(rows).items():
        names = [f"{row.latent} ({row.f1:.2f})" for row in members if row.verdict == "not"]
        if names:
            lines.append(f"- {group}: {', '.join(names)}")
    return "\n".join(lines) or "None."


Ranks = Mapping[tuple[int, int], Ranked]  # (layer, feature) -> rank


def ranks_of(folder: Path) -> Ranks:
    """The ranks in an artifact of score_features.py (features.parquet: layer, feature, score, selected)."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "features.parquet", columns=["layer", "feature", "score", "selected"]).to_pylist()
    ranks: dict[tuple[int, int], Ranked] = {}
    for layer in {row["layer"] for row in rows}:
        # dead features have no score, and come last
        ordered = [row for row in rows if row["layer"] == layer]
        ordered.sort(key=lambda row: -math.inf if row["score"] is None else row["score"], reverse=True)
        for place, row in enumerate(ordered):
            ranks[layer, row["feature"]] = Ranked(place + 1, len(ordered), bool(row["selected"]))
    return ranks


def scores_by_group(rows: Sequence[Row], ranks: Ranks) -> str:
    """A Markdown table: how the features that are a group's latents (found or partly) are ranked by their scores."""
    lines = ["| group | features | among the best | median rank, % of the layer's features |", "|---|---|---|---|"]
    everything = [row for row in rows if row.verdict != "not"]
    for group, members in {**groups(everything), "all": everything}.items():
        places = {(row.layer, row.feature) for row in members}
        found = [ranks[place] for place in places]
        share = _median(100 * one.rank / one.of for one in found)
        lines.append(f"| {group} | {len(found)} | {sum(one.is_top for one in found)} | {share:.0f} |")
    return "\n".join(lines)


def best_scoring(named: Sequence[Named], ranks: Ranks) -> str:
    """A Markdown table: the best-scoring features of each layer, and the latent that each is best."""
    lines = ["| layer | rank | feature | latent | F1 | word | F1 |", "|---|---|---|---|---|---|---|"]
    for one in sorted(named, key=lambda one: (one.layer, ranks[one.layer, one.feature].rank)):
        rank = ranks[one.layer, one.feature].rank
        if rank <= LISTED:
            latent, word = f"{one.group}: {one.latent} | {one.f1:.2f}", f"{one.word} | {one.word_f1:.2f}"
            lines.append(f"| {one.layer} | {rank} | {one.feature} | {latent} | {word} |")
    return "\n".join(lines)


def named_share(named: Sequence[Named], ranks: Ranks) -> str:
    """A sentence: how often the best-scoring features are a known latent, and how often the others are."""

    def share(members: Sequence[Named]) -> str:
        known = sum(one.f1 >= PARTLY for one in members)
        word = sum(one.word_f1 >= PARTLY > one.f1 for one in members)
        n = max(1, len(members))
        return f"{known} of {len(members)} ({known / n:.0%}) are a known latent and {word} more ({word / n:.0%}) a word"

    top = [one for one in named if ranks[one.layer, one.feature].is_top]
    others = [one for one in named if not ranks[one.layer, one.feature].is_top]
    return (
        f"With F1 of {PARTLY} or more, {share(top)} that is none, among the best-scoring features (`selected`); of the "
        f"others {share(others)}."
    )


def write_scores(rows: Sequence[Row], named: Sequence[Named], ranks: Ranks) -> None:
    """Write what the scores have to do with the latents between the markers of docs/testbed_latents.md."""
    parts = (named_share(named, ranks), scores_by_group(rows, ranks), best_scoring(named, ranks))
    _replace({"scores": "\n\n".join(parts)})


def _replace(parts: Mapping[str, str]) -> None:
    text = TABLE.read_text()
    for marker, part in parts.items():
        before, rest = text.split(f"<!-- {marker} -->\n", 1)
        _, after = rest.split(f"<!-- end {marker} -->", 1)
        text = f"{before}<!-- {marker} -->\n{part}\n<!-- end {marker} -->{after}"
    TABLE.write_text(text)


def write(rows: Sequence[Row]) -> None:
    """Write the table between the markers of docs/testbed_latents.md, the rows as JSON, and the figure."""
    lines = ",\n".join(json.dumps(_rounded(asdict(row))) for row in rows)
    DATA.write_text(f"[\n{lines}\n]\n")
    write_tables(read())
    draw(rows, FIGURE)


def write_tables(rows: Sequence[Row]) -> None:
    """Write the tables of rows as they are in the JSON between the markers of docs/testbed_latents.md."""
    _replace({"summary": summary(rows), "missing": missing(rows), "tables": tables(rows)})


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def read() -> list[Row]:
    """The rows that `write` left."""
    rows = json.loads(DATA.read_text())
    for row in rows:
        for name in ("features", "f1_by_layer"):
            row[name] = {int(layer): value for layer, value in row[name].items()}
    return [Row(**row) for row in rows]


def draw(rows: Sequence[Row], path: Path) -> None:
    """A heat map: the median F1 of each group's latents at each layer."""
    import altair as alt

    cells = [
        {"group": group, "layer": layer, "f1": _median(row.f1_by_layer[layer] for row in members)}
        for group, members in groups(rows).items()
        for layer in members[0].f1_by_layer
    ]
    base = alt.Chart(alt.Data(values=cells)).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("group:N", title=None, sort=list(groups(rows)), axis=alt.Axis(labelLimit=220)),
    )
    boxes = base.mark_rect().encode(
        color=alt.Color("f1:Q", title="median F1", scale=alt.Scale(scheme="blues", domain=[0, 1]))
    )
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("f1:Q", format=".2f"),
        color=alt.condition("datum.f1 > 0.6", alt.value("white"), alt.value("#1f2937")),
    )
    title = alt.Title(
        "How well the best single feature is a latent", subtitle="F1 on documents that nothing was chosen on"
    )
    figure = alt.layer(boxes, numbers).properties(width=alt.Step(54), height=alt.Step(22), title=title)
    path.parent.mkdir(exist_ok=True)
    figure.configure(background="white").save(path, ppi=110)
