"""plot_heatmap.py: which run, which images, and what the report says of them."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import altair as alt
from PIL import Image

from src.artifacts import Artifact, Draft, refuse_damaged
from src.config.plot_heatmap import PlotHeatmapConfig
from src.errors import StrataError
from src.report.artifact_report import NamedChart
from src.report.figures.theme import themed
from src.report.heatmaps.writing import FOLDER, Drawn, Look, write_heatmaps
from src.report.tables import Table
from src.scenarios.source_names import canonical_source
from src.scenarios.state_images import Selection, count_images
from src.scenarios.states import Run
from src.scenarios.storage.run_folder import read_captured
from src.stage.context import Stage
from src.stage.scenarios.captured import captured_scenario

_MOST_FIGURES, _FIGURE_WIDTH = 8, 900


@dataclass(frozen=True, eq=False)
class HeatmapWork:
    """What is to be drawn, checked."""

    artifact: Artifact
    runs: list[Run]
    selection: Selection
    look: Look
    n_images: int

    def identity(self) -> dict[str, Any]:
        """What determines the pictures, besides the run."""
        return {
            "runs": [run.name for run in self.runs],
            "selection": vars(self.selection),
            "look": vars(self.look) | {"cmap": self.look.colours},
        }


def prepare(config: PlotHeatmapConfig, stage: Stage) -> HeatmapWork:
    """Find the run and check that all that is asked for is there.

    Raises StrataError, which names what there is, if it is not, or if there would be too many images.
    """
    source = canonical_source(config.source)
    found = captured_scenario(stage, config.run, "run")
    refuse_damaged(found, "capture the scenario again with overwrite=true")
    captured = read_captured(found)
    runs = [run for conversation in captured.conversations for run in conversation.runs()]
    if config.conversations != "all":
        named = {run.name: run for run in runs}
        if missing := [name for name in config.conversations if name not in named]:
            raise StrataError(f"conversations: there is no {', '.join(missing)}; choose from {', '.join(named)}")
        runs = [named[name] for name in dict.fromkeys(config.conversations)]
    selection = Selection(
        source=source,
        view=config.view,
        layers=None if config.layers == "all" else sorted(set(config.layers)),
        steps=None if config.steps == "all" else sorted(set(config.steps)),
        messages=None if config.messages == "all" else sorted(set(config.messages)),
        position=config.position,
        per_head=config.per_head,
    )
    n_images = sum(count_images(run, selection) for run in runs)
    if n_images > config.max_images:
        raise StrataError(
            f"these are {n_images:,} images, and max_images={config.max_images}: choose conversations=[...], "
            "layers=[...] or steps=[...], view=generation (one image per layer), or raise max_images"
        )
    return HeatmapWork(found, runs, selection, Look(config.normalize, config.reduce, config.cmap), n_images)


def draw(work: HeatmapWork, draft: Draft, stage: Stage) -> None:
    """Draw all images into the artifact, and report them."""
    with stage.progress("drawing", work.n_images, "images") as advance:
        drawn = write_heatmaps(draft.path, work.runs, work.selection, work.look, advance)
    draft.summary |= {"n_images": drawn.n_images, "source": work.selection.source}
    figures = [_figure(name, png, number) for number, (name, png) in enumerate(drawn.sheets.items())]
    text = _text(work, drawn)
    stage.report(draft, f"Heat maps of {work.selection.source}", text, [_table(work, drawn)], figures[:_MOST_FIGURES])


def _text(work: HeatmapWork, drawn: Drawn) -> str:
    lines = [
        f"{drawn.n_images:,} images of {work.selection.source} from {work.artifact.path.name}, each as PNG and as .npy "
        f"(values as they were captured) in {FOLDER}/, and a contact sheet of each run."
    ]
    if drawn.n_not_finite:
        lines.append(f"{drawn.n_not_finite:,} values are not finite: they are green, and count in no scale.")
    if len(drawn.sheets) > _MOST_FIGURES:
        lines.append(f"Shown are the sheets of the first {_MOST_FIGURES} of {len(drawn.sheets)} runs.")
    return "\n\n".join(lines)


def _table(work: HeatmapWork, drawn: Drawn) -> Table:
    names = ", ".join(run.name for run in work.runs)
    rows: list[tuple[str, str | int | float]] = [
        ("source", work.selection.source),
        ("view", work.selection.view),
        ("runs", names if len(names) < 60 else f"{len(work.runs)} runs"),
        ("images", drawn.n_images),
        ("least value", drawn.low),
        ("largest value", drawn.high),
        ("colours", f"{work.look.colours}, {work.look.normalize}, {work.look.reduce}"),
    ]
    return Table("Heat maps", ["", "value"], rows)


def _figure(run: str, png: bytes, number: int) -> NamedChart:
    """A contact sheet as a figure of the report."""
    with Image.open(io.BytesIO(png)) as sheet:
        width, height = sheet.size
    shown = min(width, _FIGURE_WIDTH)
    tall = round(height * shown / width)
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    chart = (
        alt.Chart(alt.Data(values=[{"url": url}]))
        .mark_image(width=shown, height=tall)
        .encode(url=alt.Url("url:N"), x=alt.value(shown / 2), y=alt.value(tall / 2))
        .properties(width=shown, height=tall)
    )
    title = f"Contact sheet of {run}"
    caption = "A column for each layer (and head), a row for each step; the pictures themselves lie in the artifact."
    return NamedChart(f"sheet_{number}", title, themed(chart, title), caption)
