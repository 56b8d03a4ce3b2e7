"""The messages of a run against reference states: charts, tables, and each message by itself."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from src.report.cube import Cube
from src.report.figure_pool import FigurePool
from src.report.figures.grid import grid
from src.report.figures.layer_lines import layer_lines, message_lines
from src.report.run_comparison.blocks import Block, Charts, Fold, Help, ShadedTable
from src.report.run_comparison.compared import RunFindings, RunReferences
from src.report.run_comparison.generation import message_name
from src.report.run_comparison.words import POSITIONS, REFERENCES
from src.report.tables import Cell, Table, finite_or_none
from src.report.token_text import one_line
from src.scenarios.comparing.centring import Kind
from src.scenarios.comparing.pair_metrics import METRICS
from src.scenarios.states import Run

_PREVIEW = 90
MEAN = "mean of sources"
KINDS: dict[Kind, str] = {"raw": "cosine", "centred": "centred cosine"}
# lead: what a label's centred cosine has more than the mean of all labels
SHOWN: dict[str, str] = {**KINDS, "lead": "lead over all labels"}


@dataclass(frozen=True)
class Nearest:
    """The label whose references a message is nearest to, and its margin to the second nearest.

    agreeing: how many of the `layers` have that nearest label.
    """

    label: str
    margin: float
    agreeing: int
    layers: int


def nearest(found: RunReferences, source: str) -> list[Nearest | None]:
    """Of each message, by centred cosine as a mean over `telling_layers`; None where that is not defined."""
    of_source = found.similarities.by_source[source]
    telling = telling_layers(found, source)
    cosines = of_source.centred[telling]
    each = of_source.best()[telling]
    result: list[Nearest | None] = []
    for message, values in enumerate(cosines.nanmean(0)):
        if not len(cosines) or bool(values.isnan().any()):
            result.append(None)
            continue
        order = values.argsort(descending=True)
        margin = float(values[order[0]] - values[order[1]]) if len(order) > 1 else float("nan")
        agreeing = int((each[:, message] == order[0]).sum())
        result.append(Nearest(found.similarities.labels[int(order[0])], margin, agreeing, len(each)))
    return result


def telling_layers(found: RunReferences, source: str) -> Bool[Tensor, "layer"]:
    """The layers where references can be told apart; where none can or it was not tested, all that are not vacuous.

    They are chosen by the references alone, so what they say of messages is not chosen by its outcome.
    """
    telling = ~found.similarities.by_source[source].vacuous
    separable = found.separable(source)
    return telling & separable if separable is not None and bool((telling & separable).any()) else telling


def main_source(found: RunReferences) -> str:
    """The source that tables speak of: whose references are told apart best; else the residual stream after a block."""
    sources = list(found.similarities.by_source)
    scores = {}
    for source in sources:
        separable = found.separable(source)
        if found.separability is not None and separable is not None and bool(separable.any()):
            scores[source] = float(found.separability.by_source[source].accuracy[separable].max())
    if scores:
        return max(scores, key=lambda source: scores[source])
    return "resid_post" if "resid_post" in sources else sources[0]


def reference_blocks(one: RunFindings, pool: FigurePool) -> list[Block]:
    """One fold for each position; the first is open."""
    return [
        Fold(
            f"References, at the {POSITIONS[found.position]}",
            _position_blocks(one.run, found, pool),
            note=f"position {found.position}",
            is_open=place == 0,
        )
        for place, found in enumerate(one.references)
    ]


def _position_blocks(run: Run, found: RunReferences, pool: FigurePool) -> list[Block]:
    labels, sources = found.similarities.labels, list(found.similarities.by_source)
    layers = _layer_cube(run, found)
    means = _mean_cube(run, found)
    first = main_source(found)
    blocks: list[Block] = [Help(REFERENCES), ShadedTable(message_table(run, found, first))]
    blocks.append(_message_charts(means, first, labels, pool))
    blocks.append(_heat_maps(means, first, pool))
    if len(sources) > 1:
        others: list[Block] = [_heat_maps(means, MEAN, pool)]
        others += [_message_charts(means, source, labels, pool) for source in sources if source != first]
        blocks.append(Fold("Other sources, and their mean", others))
    blocks.append(ShadedTable(_label_table(found)))
    blocks += _role_folds(run, found, layers, pool)
    folds = [_message_fold(run, found, message, layers, pool) for message in range(len(run.messages))]
    blocks.append(Fold(f"Message by message ({len(folds)})", folds))
    return blocks


def message_table(run: Run, found: RunReferences, source: str) -> Table:
    """A row for each message: the nearest label, its margin, and the label that the scenario gives it."""
    rows: list[list[Cell]] = []
    for place, (message, best) in enumerate(zip(run.messages, nearest(found, source), strict=True)):
        said: list[Cell] = [message_name(run, place), preview(message.content), message.label or ""]
        rows.append(
            [
                *said,
                *(
                    [best.label, finite_or_none(best.margin), f"{best.agreeing} of {best.layers}"]
                    if best
                    else [None, None, None]
                ),
            ]
        )
    vacuous = _listed(found, found.similarities.by_source[source].vacuous)
    caption = (
        f"By centred cosine of {source} (where references are told apart best), mean over layers "
        f"{_listed(found, telling_layers(found, source))} (where they can be told apart, or all if there are none); "
        "margin: to the second nearest label; layers: those of "
        "them in which this label is the nearest."
    )
    if vacuous:
        caption += (
            f" At layer {vacuous} all messages and references are the same state (the same template token): raw "
            "cosines "
            "there are 1 and say nothing."
        )
    return Table(
        f"Nearest label of each message ({source})",
        ["message", "text", "its label", "nearest", "margin", "layers"],
        rows,
        caption,
    )


def _listed(found: RunReferences, layers: Bool[Tensor, "layer"]) -> str:
    return ", ".join(str(layer) for layer, chosen in zip(found.similarities.layers, layers, strict=True) if chosen)


def preview(text: str) -> str:
    """The beginning of a text, on one line; what can't be seen is escaped."""
    return one_line(" ".join(text.split()), _PREVIEW)


def _names(run: Run) -> tuple[list[str], dict[str, list[str]]]:
    names = [message_name(run, place) for place in range(len(run.messages))]
    return names, {"preview": [preview(message.content) for message in run.messages]}


def _layer_cube(run: Run, found: RunReferences) -> Cube:
    """Cosines over sources, messages, labels and layers."""
    names, about = _names(run)
    by_source = found.similarities.by_source
    # [source, layer, message, label] -> [source, message, label, layer]
    values = {
        kind: np.stack([it.of(kind).numpy() for it in by_source.values()]).transpose(0, 2, 3, 1) for kind in KINDS
    }
    dims = {
        "source": list(by_source),
        "message": names,
        "label": found.similarities.labels,
        "layer": list(found.similarities.layers),
    }
    return Cube(dims, values, {"message": about})


def _mean_cube(run: Run, found: RunReferences) -> Cube:
    """Cosines over sources, labels and messages: means over the layers that say something, and over sources."""
    names, about = _names(run)
    by_source = found.similarities.by_source
    values: dict[str, NDArray[np.floating]] = {}
    for kind in KINDS:
        means = [it.of(kind)[~it.vacuous].nanmean(0).T.numpy() for it in by_source.values()]
        values[kind] = np.stack([*means, np.mean(means, axis=0)])
    values["lead"] = values["centred"] - values["centred"].mean(1, keepdims=True)
    dims = {"source": [*by_source, MEAN], "label": found.similarities.labels, "message": names}
    return Cube(dims, values, {"message": about})


def _message_charts(means: Cube, source: str, labels: list[str], pool: FigurePool) -> Charts:
    at = {"source": list(means.dims["source"]).index(source)}
    return Charts(
        [
            pool.place(
                message_lines, means, f"{word[0].upper()}{word[1:]} of {source} with each label",
                fields={"value": kind}, at=at, label=word, series=labels,
            )
            for kind, word in SHOWN.items()
        ],
        f"{source}: mean over layers, message by message",
    )  # fmt: skip


def _heat_maps(means: Cube, source: str, pool: FigurePool) -> Charts:
    figures = [
        pool.place(
            grid, means, f"{word[0].upper()}{word[1:]}, {source}", fields={"value": kind},
            at={"source": list(means.dims["source"]).index(source)}, row="label", column="message", label=word,
            diverging=kind != "raw", angle=-50, about=["preview"], step=(33, 21),
        )
        for kind, word in SHOWN.items()
    ]  # fmt: skip
    return Charts(figures, f"{source}: messages and labels")


def _label_table(found: RunReferences) -> Table:
    """A row for each label and source: means over messages and layers."""
    rows: list[list[Cell]] = []
    for source, similar in found.similarities.by_source.items():
        plain = found.plain.over_layers(source) if source in found.plain.over_texts else {}
        for place, label in enumerate(found.similarities.labels):
            row: list[Cell] = [label, source]
            column = found.plain.labels.index(label)
            row += [finite_or_none(float(plain[metric][:, column].nanmean())) if plain else None for metric in METRICS]
            rows.append([*row, finite_or_none(float(similar.centred[~similar.vacuous][:, :, place].nanmean()))])
    caption = (
        "Means over messages and layers. cosine, MAE and overlap: mean over the texts of the label, as Activation "
        "Lab defines them; centred cosine: with the label's mean state."
    )
    return Table("Labels and sources", ["label", "source", "cosine", "MAE", "overlap", "centred cosine"], rows, caption)


def _role_folds(run: Run, found: RunReferences, layers: Cube, pool: FigurePool) -> list[Block]:
    """Means over the messages of each role: a table, and lines over the layers."""
    folds: list[Block] = []
    roles = [message.role for message in run.messages]
    names = list(dict.fromkeys(roles))
    sources, labels = list(found.similarities.by_source), found.similarities.labels
    shape = (len(names), len(sources), len(labels), len(layers.dims["layer"]))
    values = {kind: np.full(shape, np.nan) for kind in KINDS}
    for place, role in enumerate(names):
        chosen = [message for message, other in enumerate(roles) if other == role]
        for kind in KINDS:
            values[kind][place] = layers.values[kind][:, chosen].mean(1)
    cube = Cube({"role": names, "source": sources, "label": labels, "layer": layers.dims["layer"]}, values)
    for place, role in enumerate(names):
        of_role = found.plain.of_role(role)
        rows = [
            [
                label,
                source,
                *(
                    finite_or_none(float(getattr(metrics, name)[:, found.plain.labels.index(label)].nanmean()))
                    for name in METRICS
                ),
                finite_or_none(float(np.nanmean(values["centred"][place, sources.index(source), labels.index(label)]))),
            ]
            for source, metrics in of_role.items()
            for label in labels
        ]
        table = Table(
            f"Means over the messages of {role}",
            ["label", "source", "cosine", "MAE", "overlap", "centred cosine"],
            rows,
        )
        charts = [
            _layer_figures(cube, {"role": place, "source": at}, source, labels, pool)
            for at, source in enumerate(sources)
        ]
        n = roles.count(role)
        folds.append(Fold(f"mean over {n} message{'s' if n > 1 else ''}", [*charts, ShadedTable(table)], role=role))
    return [Fold("Role by role", folds)] if folds else []


def _layer_figures(cube: Cube, at: dict[str, int], source: str, labels: list[str], pool: FigurePool) -> Charts:
    figures = [
        pool.place(
            layer_lines,
            cube,
            f"{word[0].upper()}{word[1:]}",
            fields={"value": kind},
            at=at,
            label=word,
            series=labels,
            by="label",
        )
        for kind, word in KINDS.items()
    ]
    return Charts(figures, source)


def _message_fold(run: Run, found: RunReferences, message: int, layers: Cube, pool: FigurePool) -> Fold:
    labels = found.similarities.labels
    said = run.messages[message]
    blocks: list[Block] = []
    blocks += [
        _layer_figures(layers, {"source": place, "message": message}, source, labels, pool)
        for place, source in enumerate(found.similarities.by_source)
    ]
    if found.qkv is not None:
        blocks.append(_qkv_fold(found, message, pool))
    return Fold(
        f"{message}  {preview(said.content)}",
        blocks,
        role=said.role,
        note=f"label {said.label}" if said.label else "",
    )


def _qkv_fold(found: RunReferences, message: int, pool: FigurePool) -> Fold:
    assert found.qkv is not None
    arrays = {"average": found.qkv.average, "nas": found.qkv.nas, "sfa": found.qkv.sfa}
    dims = {"label": found.plain.labels, "layer": list(found.qkv.layers)}
    cube = Cube(dims, {name: array[:, message].T.numpy() for name, array in arrays.items()})
    words = {"average": "average", "nas": "sign-weighted cosine (NAS)", "sfa": "mean where signs agree (SFA)"}
    step = (30, 21) if len(dims["layer"]) <= 14 else (17, 20)
    figures = [
        pool.place(
            grid, cube, f"{word[0].upper()}{word[1:]}", fields={"value": name}, row="label", column="layer", label=word,
            step=step, numbers=step[0] >= 30, diverging=True, column_label="layer",
        )
        for name, word in words.items()
    ]  # fmt: skip
    return Fold("Queries, keys and values side by side", [Charts(figures)])
