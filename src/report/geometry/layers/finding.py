"""What analysis=layers found: words, tables, figures, records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from src.geometry.layers.histogram import RELATIVE_ERROR
from src.geometry.layers.profile import LayerProfile
from src.geometry.layers.stacks import StackComparison
from src.report.artifact_report import NamedChart
from src.report.figures.layer_states import Panel, StackMap, line_panels, stack_maps
from src.report.finding import Finding
from src.report.geometry.layers.records import (
    Record,
    comparison_records,
    increment_records,
    largest_records,
    left_out_records,
    position_records,
    site_records,
    update_records,
)
from src.report.geometry.layers.tables import (
    comparison_table,
    dimension_table,
    largest_table,
    left_out_table,
    norm_table,
    site_name,
    spread_table,
    update_table,
)
from src.report.geometry.layers.words import comparison_sentence, few_documents, stack_sentences

# lines of the panel over positions
_MOST_CURVES = 6


@dataclass(frozen=True, eq=False)
class LayerReport:
    """What was measured. stacks: by name, "" if there is one. strings: texts of the tokens that are shown."""

    model: str
    source: str
    stacks: Mapping[str, LayerProfile]
    comparison: StackComparison | None
    n_documents: int
    n_texts: int
    strings: Mapping[int, str]
    settings: Mapping[str, Any]


def layers_finding(report: LayerReport) -> Finding:
    """Everything that is written and shown."""
    records = {
        "layers": site_records(report.stacks),
        "updates": update_records(report.stacks),
        "increments": increment_records(report.stacks),
        "positions": position_records(report.stacks),
        "left_out": left_out_records(report.stacks),
        "largest_norms": largest_records(report.stacks, report.strings),
        "stack_pairs": comparison_records(report.comparison),
    }
    sites = records["layers"]
    updates = update_table(records["updates"], records["increments"])
    shown = [record for record in sites if record["kind"] in ("stream", "final_norm")] or sites
    tables = [norm_table(shown), dimension_table(shown), *([updates] if updates else [])]
    details = [spread_table(sites)]
    if len(shown) < len(sites):
        increments = [record for record in sites if record not in shown]
        details += [norm_table(increments, "increments"), dimension_table(increments, "increments")]
    details += [left_out_table(records["left_out"]), largest_table(records["largest_norms"])]
    figures = [_stack_figure(stack, records) for stack in report.stacks]
    if report.comparison is not None:
        first, second = report.stacks
        tables.insert(0, comparison_table(records["stack_pairs"], first, second))
        figures.append(_comparison_figure(records["stack_pairs"], first, second))
    scalars = {name: rows for name, rows in records.items() if name not in ("positions", "largest_norms") and rows}
    return Finding(
        text=_text(report, records),
        tables=tables,
        figures=figures,
        details=[table for table in details if table.rows],
        records={name: rows for name, rows in records.items() if rows},
        files={
            "layers.json": {
                "model": report.model,
                "source": report.source,
                "n_documents": report.n_documents,
                "n_texts": report.n_texts,
                "settings": dict(report.settings),
                "dtype": "float64",
                "quantile_relative_error": RELATIVE_ERROR,
                **_plain(scalars),
            }
        },
        tensors={"dimension_shares": _shares(report.stacks)},
        metrics=_metrics(sites),
    )


def _text(report: LayerReport, records: Mapping[str, list[Record]]) -> str:
    paragraphs = []
    if report.comparison is not None:
        paragraphs.append(comparison_sentence(records["stack_pairs"], *report.stacks))
    for stack in report.stacks:
        sites, updates, left_out = (_of(stack, records[name]) for name in ("layers", "updates", "left_out"))
        paragraphs.append(" ".join(stack_sentences(sites, updates, left_out)))
    n_tokens = records["layers"][0]["n_tokens"]
    texts, documents = _count(report.n_texts, "text"), _count(report.n_documents, "different document")
    about = (
        f"{n_tokens:,} counted tokens of {texts} ({documents}) of {report.model}, from {report.source}; intervals are "
        "95 %, over documents."
    )
    paragraphs.append(" ".join([about, *few_documents(report.n_documents)]))
    return "\n\n".join(paragraphs)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _of(stack: str, records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["stack"] == stack]


def _stack_figure(stack: str, records: Mapping[str, list[Record]]) -> NamedChart:
    sites, updates, increments, positions = (
        _of(stack, records[name]) for name in ("layers", "updates", "increments", "positions")
    )
    streams = [record for record in sites if record["kind"] == "stream"] or sites
    panels = [
        Panel("Median norm, quartiles", _norm_lines(sites), log=_spans_decades(sites)),
        Panel(
            "Mean cosine of two tokens",
            _lines(streams, cosine_within="one text", cosine_across="different texts"),
            rule=0,
        ),
        Panel(
            "Participation ratio", _lines(streams, participation="of the sample", participation_unbiased="bias removed")
        ),
        Panel(
            "Share of the squared norm",
            [
                *_lines(streams, top_share="largest dimension"),
                *_lines(streams, random_share="chance, largest"),
                *_lines(streams, mean_share="mean vector"),
            ],
        ),
        Panel("Size of the update, |Δ| / |x|", _lines(updates, size="size")),
        Panel(
            "Cosines of the update",
            _lines(updates, cosine="cos(x, y)", unrelated_cosine="if Δ is orthogonal", direction="cos(x, Δ)"),
            rule=0,
        ),
        Panel("Attention's share of what is added", _lines(increments, attention_share="share"), rule=0.5),
        Panel(
            "Norm by position, to the median",
            _position_lines(positions, streams),
            x_label="position",
            log=any(record["ratio"] > 4 for record in positions),
            rule=1,
            ramp=True,
        ),
    ]
    named = f" of the {stack}" if stack else ""
    chart = line_panels(panels, f"States{named} by layer", "layer -1: the input of block 0; bands: 95 % over documents")
    caption = (
        "Counted tokens at every layer. Norms: the band holds half of the tokens. Cosines above 0 across texts are a "
        "direction that all tokens share. The share of the largest dimension means something above what random bases "
        "give. Norms by position include BOS and special tokens: sinks stand far above the "
        "other positions (means of skewed norms lie above the median everywhere)."
    )
    return NamedChart(f"layers_{stack}" if stack else "layers", f"States{named} by layer", chart, caption)


def _norm_lines(sites: Sequence[Record]) -> list[Record]:
    names = {"stream": "stream", "final_norm": "after final norm", "attn_out": "attn_out", "mlp_out": "mlp_out"}
    return [
        {
            "x": record["layer"],
            "series": names[record["kind"]],
            "value": record["norm_median"],
            "low": record["norm_quartile_low"],
            "high": record["norm_quartile_high"],
        }
        for record in sites
    ]


def _spans_decades(sites: Sequence[Record]) -> bool:
    values = [record["norm_median"] for record in sites]
    return min(values) > 0 and max(values) > 20 * min(values)


def _lines(records: Sequence[Record], **series: str) -> list[Record]:
    """A line for each of the fields."""
    return [
        {"x": record["layer"], "series": label, "value": record[name]}
        | {end: record.get(f"{name}_{end}") for end in ("low", "high")}
        for name, label in series.items()
        for record in records
        if record[name] == record[name]
    ]


def _position_lines(positions: Sequence[Record], streams: Sequence[Record]) -> list[Record]:
    names = [record["site"] for record in streams]
    if len(names) > _MOST_CURVES:
        step = (len(names) - 1) / (_MOST_CURVES - 1)
        names = [names[round(place * step)] for place in range(_MOST_CURVES)]
    return [
        {"x": record["position"], "series": site_name(record | {"stack": ""}), "value": record["ratio"]}
        | {"low": record["ratio_low"], "high": record["ratio_high"]}
        for name in names
        for record in positions
        if record["site"] == name and record["ratio"] > 0
    ]


def _comparison_figure(records: Sequence[Record], first: str, second: str) -> NamedChart:
    def cells(name: str) -> list[Record]:
        return [
            {
                "row": site_name({"stack": "", "site": record["first"]}),
                "column": site_name({"stack": "", "site": record["second"]}),
                "value": record[name],
            }
            for record in records
        ]

    titles = {
        "cosine": "Cosine of the same token",
        "shuffled_cosine": "Cosine, other tokens of the text",
        "cka": "Linear CKA",
        "shuffled_cka": "Linear CKA, other tokens of the text",
    }
    maps = [StackMap(title, cells(name)) for name, title in titles.items() if name in records[0]]
    title = f"{first} against {second}"
    caption = (
        "Every layer of one stack against every layer of the other, on the same tokens of the same texts. What counts "
        "is how far the maps on the left are from those on the right, where positions are shuffled within texts."
    )
    return NamedChart("stacks", title, stack_maps(maps, title, "on the same tokens", first, second), caption)


def _shares(stacks: Mapping[str, LayerProfile]) -> dict[str, Tensor]:
    return {
        f"{stack}/{found.site.name}".removeprefix("/"): found.dimensions.share
        for stack, profile in stacks.items()
        for found in profile.sites
    }


def _metrics(sites: Sequence[Record]) -> dict[str, float]:
    names = ("norm_median", "cosine_within", "cosine_across", "participation_unbiased", "mean_share", "top_share")
    return {
        "/".join(part for part in (record["stack"], record["site"], name) if part): record[name]
        for record in sites
        for name in names
    }


def _plain(records: Mapping[str, Sequence[Record]]) -> dict[str, list[Record]]:
    """JSON has no NaN."""
    return {
        name: [{key: None if value != value else value for key, value in record.items()} for record in rows]
        for name, rows in records.items()
    }
