"""What compare_geometry.py shows: a table for each group of metrics, one figure, records."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from src.geometry.published import PUBLISHED, PublishedFigure
from src.report.artifact_report import NamedChart
from src.report.figures.geometry_comparison import geometry_panels
from src.report.finding import Finding
from src.report.geometry.comparison.metrics import METRICS, Measured, Metric, as_the_notebook, measured
from src.report.tables import Cell, Table, finite_or_none, format_number, interval_cell

TITLE = "Geometry of models"
# rows of a table that are no measurements of ours
_NOTEBOOK = "{}, the notebook's way"
_PUBLISHED = "{} (published)"


@dataclass(frozen=True, eq=False)
class ModelResults:
    """The parsed JSON files of all results of one model, and which artifact each analysis is."""

    name: str
    files: Mapping[str, Any]
    artifacts: Mapping[str, str]


def comparison_finding(rows: Sequence[ModelResults], differing: Sequence[str], *, published: bool) -> Finding:
    """differing: sentences on settings that the models' results don't share."""
    used = [metric for metric in METRICS if any(measured(metric, row.files) for row in rows)]
    figures = [figure for figure in PUBLISHED if published]
    groups = list(dict.fromkeys(metric.table for metric in used))
    tables = [_table(group, [metric for metric in used if metric.table == group], rows, figures) for group in groups]
    records = [record for metric in used for record in _records(metric, rows, figures)]
    details = [_published_table(figures)] if figures else []
    return Finding(
        text=_words(rows, used, differing),
        tables=tables,
        figures=[_chart(used, records)] if used else [],
        details=details,
        records={"comparison": records},
        files={
            "geometry_comparison.json": {
                "models": {row.name: dict(row.artifacts) for row in rows},
                "metrics": {metric.name: {"label": metric.label, "file": metric.file} for metric in used},
                "settings_that_differ": list(differing),
                "published": [asdict(figure) for figure in figures],
            }
        },
    )


def _table(
    group: str, metrics: Sequence[Metric], rows: Sequence[ModelResults], figures: Sequence[PublishedFigure]
) -> Table:
    found = {(row.name, metric.name): measured(metric, row.files) for row in rows for metric in metrics}
    has_null = [metric for metric in metrics if any(_of(found, row, metric).null is not None for row in rows)]
    has_p = [metric for metric in metrics if any(_of(found, row, metric).p is not None for row in rows)]
    columns = [group.lower()]
    for metric in metrics:
        columns += [
            metric.label,
            *["null" for _ in [metric] if metric in has_null],
            *["p" for _ in [metric] if metric in has_p],
        ]
    lines: list[list[Cell]] = []
    for row in rows:
        if not any(found[row.name, metric.name] for metric in metrics):
            continue
        line: list[Cell] = [row.name]
        for metric in metrics:
            each = _of(found, row, metric)
            line.append(_cell(each))
            line += [_number(each.null)] if metric in has_null else []
            line += [_number(each.p)] if metric in has_p else []
        lines.append(line)

    def further(name: str, values: Mapping[str, Cell]) -> None:
        if any(value is not None for value in values.values()):
            line: list[Cell] = [name]
            for metric in metrics:
                line += [values.get(metric.name), *[None] * ((metric in has_null) + (metric in has_p))]
            lines.append(line)

    for row in rows:
        notebook = {metric.name: _number(as_the_notebook(metric, row.files)) for metric in metrics}
        further(_NOTEBOOK.format(row.name), notebook)
    for model in dict.fromkeys(figure.model for figure in figures):
        stated = {figure.metric: _stated(figure) for figure in figures if figure.model == model}
        further(_PUBLISHED.format(model), {metric.name: stated.get(metric.name) for metric in metrics})
    return Table(group, columns, lines, _CAPTIONS.get(group, ""))


_CAPTIONS = {
    "Embeddings": "PR / d: participation ratio by width; its null: an isotropic cloud of as many rows. digits r: "
    "|i - j| against cosine, p by relabelling. purity: nearest neighbours of one category.",
    "Simplices": "CV of volumes; its null: a Gaussian cloud of the same covariance and norms. formula: from effective "
    "dimension and spread of norms.",
    "Layers": "Of the last layer.",
    "Lexicon": "r of cosine with path similarity; null: the upper end of what permuted words give.",
    "Weights": "Shares of |w| < 0.1; null: a Gaussian matrix of the same spread.",
    "Circuits": "Means over heads; null: heads of random matrices; p: against other heads' keys or values.",
}


def _of(found: Mapping[tuple[str, str], Measured | None], row: ModelResults, metric: Metric) -> Measured:
    return found[row.name, metric.name] or Measured(float("nan"))


def _cell(each: Measured) -> Cell:
    if each.low is None or each.high is None:
        return _number(each.value)
    return interval_cell(each.value, each.low, each.high)


def _number(value: float | None) -> Cell:
    """Counts stay whole."""
    return value if isinstance(value, int) else finite_or_none(value)


def _stated(figure: PublishedFigure) -> Cell:
    if figure.highest is None:
        return figure.value
    return f"{format_number(figure.value)} to {format_number(figure.highest)}"


def _records(metric: Metric, rows: Sequence[ModelResults], figures: Sequence[PublishedFigure]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    about = {"analysis": metric.table.lower(), "metric": metric.name, "label": metric.label}
    for row in rows:
        each = measured(metric, row.files)
        if each is not None:
            record = {"model": row.name, "source": "measured", **asdict(each)}
            records.append(about | {key: _float(value) for key, value in record.items()})
        theirs = as_the_notebook(metric, row.files)
        if theirs is not None:
            records.append(about | {"model": row.name, "source": "notebook", "value": float(theirs)})
    for figure in figures:
        if figure.metric == metric.name:
            ends = {} if figure.highest is None else {"low": figure.value, "high": figure.highest}
            middle = figure.value if figure.highest is None else (figure.value + figure.highest) / 2
            stated = {"model": figure.model, "source": "published", "value": float(middle), **ends}
            records.append(about | stated | {"caveat": figure.caveat})
    return records


def _float(value: Any) -> Any:
    return float(value) if isinstance(value, int) else value


def _published_table(figures: Sequence[PublishedFigure]) -> Table:
    rows: list[list[Cell]] = [
        [each.metric.replace("_", " "), each.model, _stated(each), each.caveat] for each in figures
    ]
    return Table("Figures that the notebook states", ["figure", "model", "value", "to be known"], rows)


def _words(rows: Sequence[ModelResults], used: Sequence[Metric], differing: Sequence[str]) -> str:
    headlines = [
        words
        for name in ("simplex_cv", "digit_r", "participation_share", "static_pearson")
        for metric in used
        if metric.name == name and (words := _range(metric, rows))
    ]
    n_models = "1 model" if len(rows) == 1 else f"{len(rows)} models"
    found = f"{n_models} beside each other in {len(used)} numbers"
    sentences = [f"{found}: {'; '.join(headlines)}." if headlines else f"{found}."]
    groups = dict.fromkeys(each.table for each in used)
    for row in rows:
        there = {each.table for each in used if measured(each, row.files)}
        if lacking := [group.lower() for group in groups if group not in there]:
            sentences.append(f"Not measured of {row.name}: {', '.join(lacking)}.")
    sentences += differing
    return " ".join(sentences)


def _range(metric: Metric, rows: Sequence[ModelResults]) -> str:
    found = [each for row in rows if (each := measured(metric, row.files))]
    values = [each.value for each in found]
    nulls = [each.null for each in found if each.null is not None]
    ps = [each.p for each in found if each.p is not None]
    beside = [f"null {_ends(nulls)}"] if nulls else []
    beside += [f"p {_ends(ps)}"] if ps else []
    return f"{_NAMES[metric.name]} {_ends(values)}" + (f" ({', '.join(beside)})" if beside else "")


_NAMES = {
    "simplex_cv": "CV of simplex volumes",
    "digit_r": "r of digits' distance with their cosine",
    "participation_share": "participation ratio by width",
    "static_pearson": "r of embeddings' cosines with the taxonomy",
}


def _ends(values: Sequence[float]) -> str:
    low, high = format_number(float(min(values))), format_number(float(max(values)))
    return low if low == high else f"{low} to {high}"


def _chart(used: Sequence[Metric], records: Sequence[Mapping[str, Any]]) -> NamedChart:
    panels = [
        (f"{metric.table}: {metric.label}", [record for record in records if record["metric"] == metric.name])
        for metric in used
    ]
    caption = (
        "A panel for each number. Dots: measured, with intervals where there are any; grey bars: what the null gives; "
        "crosses: computed as the notebook does; diamonds: what it states of other models."
    )
    return NamedChart("comparison", TITLE, geometry_panels(panels, TITLE), caption)
