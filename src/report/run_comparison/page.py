"""report.html of a comparison of runs: one file that opens from disk, with the network off."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from src.report.artifact_report import NamedPage
from src.report.charts import TEMPLATES, page_assets, page_policy, templates, write_whole
from src.report.figure_pool import FigurePool
from src.report.page import paragraphs
from src.report.run_comparison.between import between_part
from src.report.run_comparison.blocks import Block, Help, PagePart, Prose
from src.report.run_comparison.compared import ComparedRuns
from src.report.run_comparison.generation import StepPool
from src.report.run_comparison.labelled_block import labelled_part
from src.report.run_comparison.provenance import provenance_part
from src.report.run_comparison.run_cards import run_part
from src.report.run_comparison.separability import references_part
from src.report.run_comparison.within import overview_block, within_part
from src.report.run_comparison.words import WITHIN
from src.report.tables import cell_text, numeric_columns

PAGE = NamedPage("The whole report", "report.html")
TITLE = "Runs compared"


def write_comparison_page(folder: Path, found: ComparedRuns, text: str) -> None:
    """Write the page: its numbers lie in it once, and its charts are drawn when they come near the screen.

    Raises StrataError when the place can't be written.
    """
    pool, steps = FigurePool(), StepPool()
    overview: list[Block] = [Prose(text), Help(WITHIN), overview_block(found)]
    if found.problems:
        overview.append(Prose("What could not be compared:\n\n" + "\n\n".join(found.problems)))
    parts = [
        PagePart("overview", "Overview", overview),
        within_part(found, pool),
        references_part(found, pool),
        labelled_part(found, pool),
        run_part(found, pool, steps),
        between_part(found, pool),
        provenance_part(found),
    ]
    html = _render([part for part in parts if part is not None], found, pool.json() | steps.json())
    # lone surrogates, which a broken tokenizer can make, are no UTF-8
    write_whole(folder / PAGE.file, html.encode("utf-8", "replace"))


def _render(parts: Sequence[PagePart], found: ComparedRuns, data: dict[str, Any]) -> str:
    assets = page_assets()
    script = (TEMPLATES / "comparison.js").read_text(encoding="utf-8")
    names = ", ".join(scenario.name for scenario in found.scenarios)
    n = len(found.runs)
    return (
        templates()
        .get_template("comparison.html.j2")
        .render(
            title=TITLE,
            subtitle=f"{n} run{'s' if n > 1 else ''} of {names}",
            parts=parts,
            cell_text=cell_text,
            numeric_columns=numeric_columns,
            paragraphs=paragraphs,
            data=Markup(script_json(data)),
            style=assets["style"],
            own_style=Markup((TEMPLATES / "comparison.css").read_text(encoding="utf-8")),
            vega=assets["vega"],
            boot=Markup(script),
            policy=page_policy(str(assets["vega"]), script),
        )
    )


def script_json(data: Any) -> str:
    """JSON for a script element: no text in it can end the element, or a line."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
