"""The files of a comparison of topology: records for other programs, a Markdown report, and a page of its own."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from src.artifacts import write_json
from src.report.artifact_report import FIGURES, NamedChart, NamedPage
from src.report.charts import write_whole
from src.report.page import Figure, Section, write_page
from src.report.records import write_records
from src.report.tables import Table, cell_text
from src.report.topology.compared import CloudPair, ComparedTopology
from src.report.topology.comparison import Group
from src.report.topology.published_pairs import PublishedPair

PAGE = NamedPage("Meta-analysis", "comparison.html")
MARKDOWN = "comparison.md"
TITLE = "Topology compared"


def write_comparison(folder: Path, found: ComparedTopology, groups: Sequence[Group], text: str) -> None:
    """Write pairs.parquet and .json, layers.json, perplexity.json, and the Markdown report."""
    records = [
        {"first": pair.first, "second": pair.second, **_record(cloud)} for pair in found.pairs for cloud in pair.clouds
    ]
    write_records(folder / "pairs", records)
    matrices = {label: found.within[label] for label in found.within}
    matrices |= {f"{pair.first} | {pair.second}": pair.matrices for pair in found.pairs}
    write_json(
        folder / "layers.json",
        {
            label: [
                {"measure": each.measure, "rows": each.rows, "columns": each.columns, "values": _plain(each.values)}
                for each in of
            ]
            for label, of in matrices.items()
        },
    )
    losses = {
        model: {"perplexity": _plain(asdict(loss)), "n_tokens": loss.n_tokens} for model, loss in found.losses.items()
    }
    write_json(
        folder / "perplexity.json",
        {
            "models": losses,
            "none": found.no_loss,
            "text": found.text,
            "correlations": {
                name: {**_plain(asdict(each)), "q": found.correlation_q().get(name)}
                for name, each in found.correlations.items()
            },
        },
    )
    write_whole(folder / MARKDOWN, markdown(groups, text).encode())


def write_comparison_page(folder: Path, groups: Sequence[Group], text: str) -> None:
    """Write the page; the figures of the groups have been drawn into the folder."""
    sections = [Section("In words", text)]
    sections += [
        Section(
            group.title, group.text, [*group.tables, *group.details], [_drawn(folder, named) for named in group.figures]
        )
        for group in groups
    ]
    write_page(folder / PAGE.file, TITLE, sections)


def markdown(groups: Sequence[Group], text: str) -> str:
    """The report as Markdown: words, tables, and links to the figures beside it."""
    parts = [f"# {TITLE}", text]
    for group in groups:
        parts += [f"## {group.title}", *([group.text] if group.text else [])]
        parts += [_markdown_table(table) for table in (*group.tables, *group.details)]
        parts += [f"![{named.title}]({FIGURES}/{named.name}.png)" for named in group.figures]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns)]
    for row in table.rows:
        cells = [cell_text(cell) for cell in row]
        lines.append([f"{cell.text} {cell.interval}".strip() for cell in cells])
    body = "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"**{table.title}**\n\n{body}" + (f"\n\n{table.caption}" if table.caption else "")


def _drawn(folder: Path, named: NamedChart) -> Figure:
    stem = folder / FIGURES / named.name
    spec = json.loads(stem.with_name(f"{named.name}.vl.json").read_text(encoding="utf-8"))
    return Figure(named.title, spec, stem.with_name(f"{named.name}.png").read_bytes(), named.caption)


def _record(cloud: CloudPair) -> dict[str, Any]:
    """Every number of a pair of clouds, flat."""
    found = cloud.found
    record: dict[str, Any] = {
        "first_cloud": cloud.first,
        "second_cloud": cloud.second,
        "first_points": cloud.n_points[0],
        "second_points": cloud.n_points[1],
    }
    for name, distances in (("raw", found.raw), ("scale_free", found.scale_free or ())):
        for k, distance in enumerate(distances):
            record |= {f"{name}_h{k}_{key}": value for key, value in asdict(distance).items() if key != "n_infinite"}
    record |= {f"halves_{key}": value for key, value in asdict(found.loops).items()}
    if found.union is not None:
        record |= {"centre_raw": found.union.centre[0], "centre_scaled": found.union.centre[1]}
        for name, tests in (("as_they_are", found.union.tests), ("shape", found.union.shape_tests)):
            of_tests = {"tree": tests.friedman_rafsky, "energy": tests.energy, "mmd": tests.mmd}
            record |= {
                f"{name}_{test}_{key}": value for test, each in of_tests.items() for key, value in asdict(each).items()
            }
        record |= {"verdict": found.union.verdict, "shape_verdict": found.union.shape_verdict}
        for k, kept in enumerate(found.union.preserved):
            record |= {f"h{k}_kept_first": kept.first.share, f"h{k}_kept_second": kept.second.share}
            record |= {f"h{k}_new": kept.n_new, f"h{k}_longest_new": kept.longest_new}
    else:
        record["no_union"] = found.no_union
    if found.paired is not None:
        for name in ("cka", "debiased_cka", "rsa", "procrustes"):
            record |= {f"{name}_{key}": value for key, value in asdict(getattr(found.paired, name)).items()}
    if found.basis is not None:
        record["basis_agreement"] = found.basis
    if cloud.published is not None:
        record |= _published(cloud.published)
    return record


def _published(pair: PublishedPair) -> dict[str, Any]:
    """Every digit that actopo prints, under its names."""
    own, shared = pair.unions
    return {
        **{f"actopo_independent_{key}": value for key, value in own.items()},
        **{f"actopo_shared_{key}": value for key, value in shared.items()},
        **{f"actopo_{key}": value for key, value in pair.bottleneck.items()},
        "actopo_center_distance": pair.centre[0],
        "actopo_center_distance_raw": pair.centre[1],
        "actopo_phi": pair.phi,
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN and no arrays."""
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
