"""The finding of align_models.py: words, tables, the figure, records and files."""

from typing import Any

from src.report.finding import Finding
from src.report.geometry.alignment.figure import alignment_figures
from src.report.geometry.alignment.records import (
    Aligned,
    as_json,
    curve_records,
    map_tensors,
    metrics,
    ordered_record,
    score_records,
    spectrum_records,
    token_records,
)
from src.report.geometry.alignment.tables import alignment_details, alignment_tables
from src.report.geometry.alignment.words import alignment_text


def alignment_finding(found: Aligned) -> Finding:
    """Everything, ready to be written and shown."""
    files: dict[str, Any] = {"alignment.json": as_json(found)}
    if found.notebook is not None:
        files["alignment_notebook.json"] = found.notebook.as_json()
    return Finding(
        text=alignment_text(found),
        tables=alignment_tables(found),
        details=alignment_details(found),
        figures=alignment_figures(found),
        records={
            "scores": score_records(found.alignment),
            "tokens": token_records(found),
            "learning_curve": curve_records(found.alignment),
            "spectrum": spectrum_records(found),
            **({"ordered_sets": [ordered_record(each) for each in found.ordered]} if found.ordered else {}),
        },
        files=files,
        tensors={"maps": map_tensors(found.alignment)},
        metrics=metrics(found),
    )
