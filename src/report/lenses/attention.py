"""Where tokens look: entropy, sinks, and which message is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from src.report.artifact_report import NamedChart
from src.report.figures.run_analysis import cell_map, layer_panels
from src.report.finding import Finding
from src.report.lenses.rows import MOST_DRAWN, drawn_note, item_names, sentence
from src.report.tables import Cell, Table, finite_or_none
from src.scenarios.lenses.items import Items

_LISTED = 10
# places where messages are not told apart
_NO_MESSAGES = ("first token", "all else")
_WHERE = {"answer": "before an answer to each message", "end": "at the end of each message"}


@dataclass(frozen=True, eq=False)
class AttentionView:
    """Attention of some rows.

    places: names of what is read (first token, each message, the rest). shares: attention to them; even: what they
    would get if all visible keys were looked at alike.
    """

    items: Items
    layers: Sequence[int]
    visible: Int[Tensor, "layer row"]
    entropy: Float[Tensor, "layer row head"]
    sink: Float[Tensor, "layer row head"]
    places: Sequence[str]
    shares: Float[Tensor, "layer row head place"]
    even: Float[Tensor, "row place"]


def attention_finding(views: Sequence[AttentionView], position: str | None) -> Finding:
    """All of it as records, lines over layers, and maps of who reads whom. position: of the messages."""
    heads: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    figures = []
    for view in views:
        heads += _head_records(view)
        shares += _share_records(view)
        lines += _lines(view)
    title = "Attention by layer"
    note = "means over heads and rows; bands: from the head with the least to that with the most"
    chart = layer_panels(lines, title, subtitle=note)
    caption = (
        "Entropy over the logarithm of the number of keys that a row can see: 0 = one key, 1 = all alike. Sink: "
        "attention to the first token."
    )
    figures.append(NamedChart("attention_by_layer", title, chart, caption))
    for view in views:
        figures += _maps(view, position)
    known = len(views[0].places) > len(_NO_MESSAGES)
    return Finding(
        "" if known else "This template rewrites earlier messages, so attention can't be told apart by message.",
        [_table(views)],
        figures,
        records={"attention_heads": heads, "attention_places": shares},
        metrics={
            f"attention/{view.items.kind}/sink/layer_{layer}": float(view.sink[place].mean())
            for view in views
            for place, layer in enumerate(view.layers)
        },
    )


def _head_records(view: AttentionView) -> list[dict[str, Any]]:
    return [
        {
            "kind": view.items.kind,
            "number": number,
            "layer": layer,
            "head": head,
            "visible_keys": int(view.visible[place, row]),
            "normalised_entropy": finite_or_none(float(view.entropy[place, row, head])),
            "sink_share": float(view.sink[place, row, head]),
        }
        for place, layer in enumerate(view.layers)
        for row, number in enumerate(view.items.numbers)
        for head in range(view.entropy.shape[-1])
    ]


def _share_records(view: AttentionView) -> list[dict[str, Any]]:
    return [
        {
            "kind": view.items.kind,
            "number": number,
            "layer": layer,
            "head": head,
            "place": name,
            "share": float(view.shares[place, row, head, k]),
            "even_share": float(view.even[row, k]),
        }
        for place, layer in enumerate(view.layers)
        for row, number in enumerate(view.items.numbers)
        for head in range(view.shares.shape[2])
        for k, name in enumerate(view.places)
        if view.even[row, k] > 0
    ]


def _lines(view: AttentionView) -> list[dict[str, Any]]:
    measures = {"normalised entropy": view.entropy, "attention to the first token": view.sink}
    records = []
    for measure, values in measures.items():
        of_heads = values.nanmean(1)
        for place, layer in enumerate(view.layers):
            known = of_heads[place][~of_heads[place].isnan()]
            ends = (
                {"low": float(known.min()), "high": float(known.max())} if len(known) else {"low": None, "high": None}
            )
            value = float(known.mean()) if len(known) else None
            records.append({"measure": measure, "series": view.items.kind, "layer": layer, "value": value, **ends})
    return records


def _maps(view: AttentionView, position: str | None) -> list[NamedChart]:
    """Layer by place, mean over rows and heads; and row by place, mean over layers and heads."""
    kind, columns = view.items.kind, item_names(view.items)
    there = view.even > 0
    over_heads = view.shares.mean(2)
    by_layer = [
        {
            "row": str(layer),
            "column": name,
            "value": finite_or_none(float(over_heads[place][:, k][there[:, k]].mean())),
        }
        for place, layer in reversed(list(enumerate(view.layers)))
        for k, name in enumerate(view.places)
    ]
    by_row = [
        {
            "row": columns[row],
            "column": name,
            "value": float(over_heads[:, row, k].mean()) if there[row, k] else None,
        }
        for row in range(min(len(view.items), MOST_DRAWN))
        for k, name in enumerate(view.places)
    ]
    where = "while answering" if kind == "steps" else _WHERE[position or "end"]
    caption = (
        "Attention summed over a message's tokens, the first token of all apart; longer messages get more of it even "
        "from a reader that prefers none (even_share in attention_places.parquet)."
    )
    title, by_title = f"What each layer reads {where}", f"Which message is read {where}"
    row_name = "step and the token it chose" if kind == "steps" else "reader"
    note = sentence("mean over layers and heads", drawn_note(len(view.items), kind))
    return [
        NamedChart(
            f"attention_layers_{kind}",
            title,
            cell_map(
                by_layer, title, rows="layer", columns="is read", label="share of attention",
                subtitle="mean over heads and rows",
            ),
            caption,
        ),
        NamedChart(
            f"attention_{kind}",
            by_title,
            cell_map(by_row, by_title, rows=row_name, columns="is read", label="share of attention", subtitle=note),
            caption,
        ),
    ]  # fmt: skip


def _table(views: Sequence[AttentionView]) -> Table:
    rows: list[list[Cell]] = []
    for view in views:
        mean, even = view.shares.mean((0, 2)), view.even
        for k, name in _listed(view.places):
            there = even[:, k] > 0
            if bool(there.any()):
                share, alike = float(mean[there, k].mean()), float(even[there, k].mean())
                rows.append([view.items.kind, name, int(there.sum()), share, alike, share / alike])
    caption = (
        "Mean over layers, heads and the rows that can see it. even: the share of the tokens, which a reader that "
        "prefers none would give. ratio: share / even."
    )
    if most := max((len(view.places) - len(_listed(view.places)) for view in views), default=0):
        caption += f" {most} in the middle of the conversation are left out here: the figures have them."
    return Table("Attention to messages", ["over", "is read", "rows", "share", "even", "ratio"], rows, caption)


def _listed(places: Sequence[str]) -> list[tuple[int, str]]:
    """What is read, with its column: the first token and the first message, and the last ones."""
    numbered = list(enumerate(places))
    return numbered if len(numbered) <= _LISTED + 2 else numbered[:2] + numbered[-_LISTED:]
