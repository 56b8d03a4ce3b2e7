"""What the terminal, the index page and the tracker get of a comparison of runs."""

import numpy as np

from src.report.artifact_report import NamedChart
from src.report.cube import Cube
from src.report.figures.layer_lines import layer_lines, null_band
from src.report.run_comparison.compared import ComparedRuns, RunFindings
from src.report.run_comparison.labelled_block import labelled_table
from src.report.run_comparison.reference_block import main_source, nearest, preview
from src.report.run_comparison.separability import separability_finding, separability_table
from src.report.run_comparison.within import layer_cube, overview_table
from src.report.tables import Cell, Table, finite_or_none

# figures of so many runs at most
_FIGURES = 4


def shown_tables(found: ComparedRuns) -> list[Table]:
    """Overview, nearest references, and what references tell apart."""
    tables = [overview_table(found), nearest_table(found), separability_table(found), labelled_table(found)]
    return [table for table in tables if table is not None]


def nearest_table(found: ComparedRuns) -> Table | None:
    """A row for each run and position: where its last message and its reply lie, and how many labels came out right."""
    rows: list[list[Cell]] = []
    for one in found.runs:
        for each in one.references:
            best = nearest(each, main_source(each))
            row: list[Cell] = [one.key, one.name, each.position, main_source(each)]
            for place in (len(best) - 2, len(best) - 1):
                it = best[place] if place >= 0 else None
                row += [it.label if it else None, finite_or_none(it.margin) if it else None]
            labelled = [(it, said.label) for it, said in zip(best, one.run.messages, strict=True) if said.label and it]
            right = sum(it.label == label for it, label in labelled)
            rows.append([*row, f"{right} of {len(labelled)}" if labelled else ""])
    if not rows:
        return None
    columns = [
        "key",
        "run",
        "position",
        "source",
        "last message",
        "margin",
        "reply",
        "its margin",
        "labelled messages right",
    ]
    caption = (
        "Nearest reference label by centred cosine of the source by which the references are told apart best, mean "
        "over the "
        "layers where they can be (all if none); margin: to the second nearest."
    )
    return Table("Nearest references", columns, rows, caption)


def words(found: ComparedRuns) -> str:
    """A few sentences for the terminal and the top of the page."""
    runs = found.runs
    parts = [separability_finding(found)] if separability_finding(found) else []
    parts.append(f"{_count(len(runs), 'run')} of {_count(len(found.scenarios), 'captured scenario')}.")
    pairs = len({pair.name for pair in found.between.pairs})
    if pairs:
        parts.append(f"{_count(pairs, 'pair')} compared.")
    if found.between.left_out:
        parts.append(f"{len(found.between.left_out)} not compared, or not wholly: {found.between.left_out[0].reason}.")
    early = {
        layer
        for one in runs
        for each in one.references
        for it in each.similarities.by_source.values()
        for layer, vacuous in zip(each.similarities.layers, it.vacuous, strict=True)
        if vacuous
    }
    if early:
        listed = ", ".join(str(layer) for layer in sorted(early))
        parts.append(
            f"At layer {listed} some source has the same state for every message and reference (the same template "
            "token): raw cosines there are 1 and say nothing."
        )
    return " ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def metrics(found: ComparedRuns) -> dict[str, float]:
    """Numbers for the tracker: mean cosine of first and last step by source, and best separability by position."""
    numbers: dict[str, float] = {"n_runs": float(len(found.runs))}
    for source in found.sources:
        means = [float(one.within[source].cosine.nanmean()) for one in found.runs if source in one.within]
        if means:
            numbers[f"within/{source}/cosine"] = float(np.mean(means))
    for scenario in found.scenarios:
        for each in scenario.separability:
            for source, it in each.by_source.items():
                if not bool(it.accuracy.isnan().all()):
                    numbers[f"separability/{scenario.name}/{each.position}/{source}"] = float(
                        np.nanmax(it.accuracy.numpy())
                    )
    return numbers


def figures(found: ComparedRuns) -> list[NamedChart]:
    """For the index page: cosines over layers of the first runs, and separability of their references."""
    charts: list[NamedChart] = []
    for one in found.runs[:_FIGURES]:
        if one.within:
            charts.append(_within_chart(one))
    for number, scenario in enumerate(found.scenarios[:_FIGURES]):
        for each in scenario.separability[:1]:
            source = "resid_post" if "resid_post" in each.by_source else next(iter(each.by_source), None)
            if source is None:
                continue
            it = each.by_source[source]
            arrays = {
                "value": it.accuracy,
                "low": it.low,
                "high": it.high,
                "null": it.null_mean,
                "null_low": it.null_mean,
                "null_high": it.null_high,
            }
            cube = Cube({"layer": list(each.layers)}, {name: array.numpy() for name, array in arrays.items()})
            title = f"{preview(scenario.name)}: reference texts that find their own label ({source}, {each.position})"
            chart = null_band(cube.records(), title, label="share of texts", middle=True)
            charts.append(
                NamedChart(
                    f"separability_{number + 1}",
                    title,
                    chart,
                    "Each text left out in turn; grey: shuffled labels, mean to 95 % quantile.",
                )
            )
    return charts


def _within_chart(one: RunFindings) -> NamedChart:
    cube = layer_cube(one.within, list(one.within))
    title = f"{one.key} · {preview(one.name)}: first against last step"
    chart = layer_lines(cube.records(fields={"value": "cosine"}), title, label="cosine", series=list(one.within))
    return NamedChart(
        f"within_{one.key}",
        title,
        chart,
        f"Cosine of the prompt's last token and the last step, after {len(one.run.generation.token_ids)} tokens.",
    )
