"""What the logit lens shows: which token each layer would give, and how far that is from what the model says."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.figures.logit_lens import lens_table
from src.report.figures.run_analysis import layer_panels
from src.report.finding import Finding
from src.report.lenses.rows import MOST_DRAWN, drawn_note, item_names, sentence
from src.report.tables import Cell, Table
from src.report.token_text import visible
from src.scenarios.lenses.items import Items
from src.scenarios.lenses.logit_lens import LensReadings, agreement

LOGIT, TRANSPORT = "logit", "transport"
_NEXT = 4  # likeliest tokens in a tooltip


@dataclass(frozen=True, eq=False)
class LensView:
    """Readings of one lens over some rows.

    lens: LOGIT or TRANSPORT. layers: of the readings. targets: the token that each row is asked about. final_ids: the
    model's likeliest token of each row.
    """

    lens: str
    items: Items
    layers: Sequence[int]
    readings: LensReadings
    targets: Sequence[int]
    final_ids: Sequence[int]


def lens_finding(
    views: Sequence[LensView], strings: Mapping[int, str], model: str, position: str | None, deviation: float | None
) -> Finding:
    """All readings as records, figures and a table.

    strings: the text of every token id. position: of the messages. deviation: largest difference between the stored
    logits and those that the head gives of the last layer's state; None where only one of both is there.
    """
    rows = [record for view in views for record in _records(view, strings)]
    table = _table(views)
    figures = [_token_figure(view, strings, position) for view in views]
    lines = list(_line_records(views))
    if len({record["layer"] for record in lines}) > 1:
        note = "against the model's own final distribution, means over rows"
        title = "How far each layer is from the end"
        chart = layer_panels(lines, title, subtitle=note)
        figures.append(NamedChart("lens_by_layer", title, chart, _CAPTION))
    top_k = views[0].readings.top_ids.shape[-1]
    frames = [frame for view in views if view.items.kind == "steps" for frame in _frames(view, strings, -1)]
    of_messages = [
        frame for view in views if view.items.kind == "messages" for frame in _frames(view, strings, position)
    ]
    file = {"model": model, "position": -1, "top_k": top_k, "frames": frames, "message_frames": of_messages}
    return Finding(
        _text(views, deviation),
        [table],
        figures,
        records={"logit_lens_rows": rows},
        files={"logit_lens.json": file},
        metrics={
            f"lens/{view.lens}/{view.items.kind}/kl_final_layer/layer_{layer}": float(value)
            for view in views
            for layer, value in zip(view.layers, view.readings.kl_final_layer.mean(1), strict=True)
        },
    )


_KL_LAYER, _KL_FINAL, _JS = "KL(layer || final), nats", "KL(final || layer), nats", "Jensen-Shannon, nats"
_CAPTION = (
    "final: what the model really predicts. KL(layer || final) is large where a layer allows what the end rules out, "
    "KL(final || layer) where it rules out what the end says. Means over the rows of one conversation, which are no "
    "independent sample: there are no intervals."
)


def _records(view: LensView, strings: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    found = view.readings
    for place, layer in enumerate(view.layers):
        for row, number in enumerate(view.items.numbers):
            ids, logprobs = found.top_ids[place, row].tolist(), found.top_logprobs[place, row].tolist()
            yield {
                "lens": view.lens,
                "kind": view.items.kind,
                "number": number,
                "word": view.items.words[row],
                "layer": layer,
                "target_id": view.targets[row],
                "target": strings[view.targets[row]],
                "target_logprob": float(found.target_logprob[place, row]),
                "target_rank": int(found.target_rank[place, row]),
                "final_id": view.final_ids[row],
                "entropy": float(found.entropy[place, row]),
                "kl_layer_final": float(found.kl_layer_final[place, row]),
                "kl_final_layer": float(found.kl_final_layer[place, row]),
                "js": float(found.js[place, row]),
                "top_ids": ids,
                "top_tokens": [strings[token] for token in ids],
                "top_logprobs": [_plain(value) for value in logprobs],
            }


def _frames(view: LensView, strings: Mapping[int, str], position: int | str | None) -> Iterator[dict[str, Any]]:
    """Activation Lab's frames; `step` is `message` where a frame is of one. What is not finite is null."""
    name = "step" if view.items.kind == "steps" else "message"
    for record in _records(view, strings):
        top = zip(record["top_ids"], record["top_tokens"], record["top_logprobs"], strict=True)
        yield {
            name: record["number"],
            "layer": record["layer"],
            "position": position,
            "top_k": [{"id": token, "token": text, "logprob": value} for token, text, value in top],
            "argmax_id": record["top_ids"][0],
            "argmax_logprob": record["top_logprobs"][0],
            "kl_from_final": _plain(record["kl_layer_final"]),
            "kl_final_layer": _plain(record["kl_final_layer"]),
            "js": _plain(record["js"]),
            "entropy": _plain(record["entropy"]),
            "target_id": record["target_id"],
            "target_logprob": _plain(record["target_logprob"]),
            "target_rank": record["target_rank"],
            "lens": view.lens,
        }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(views: Sequence[LensView]) -> Table:
    rows: list[list[Cell]] = []
    for view in views:
        found = view.readings
        same = agreement(found, _tensor(view.final_ids, found))
        for place, layer in enumerate(view.layers):
            means = (found.kl_layer_final, found.kl_final_layer, found.js, found.entropy)
            row: list[Cell] = [view.items.kind, view.lens, str(layer), *(float(value[place].mean()) for value in means)]
            rows.append([*row, float(same[place]), float(found.target_rank[place].float().median())])
    columns = ["over", "lens", "layer", "KL(layer || final)", "KL(final || layer)", "JS", "entropy"]
    caption = (
        "Means over rows, in nats. same top: share of rows whose likeliest token is the model's. rank: median rank of "
        "the token that the step chose (of messages: the likeliest one); 1 = nothing is likelier."
    )
    return Table("Logit lens", [*columns, "same top", "rank"], rows, caption)


def _tensor(ids: Sequence[int], like: LensReadings) -> Any:
    return like.top_ids.new_tensor(list(ids))


def _line_records(views: Sequence[LensView]) -> Iterator[dict[str, Any]]:
    for view in views:
        found = view.readings
        series = f"{view.items.kind}, {view.lens} lens"
        measures = {
            _KL_LAYER: found.kl_layer_final,
            _KL_FINAL: found.kl_final_layer,
            _JS: found.js,
            "entropy, nats": found.entropy,
            "probability of the target": found.target_logprob.exp(),
        }
        for measure, values in measures.items():
            for layer, value in zip(view.layers, values.mean(1).tolist(), strict=True):
                yield {"measure": measure, "series": series, "layer": layer, "value": _plain(value)}


def _token_figure(view: LensView, strings: Mapping[int, str], position: str | None) -> NamedChart:
    columns = item_names(view.items)
    steps = view.items.kind == "steps"
    cells = [
        {
            "layer": record["layer"],
            "column": columns[view.items.numbers.index(record["number"])],
            "token": visible(record["top_tokens"][0], 40),
            "probability": 0.0 if record["top_logprobs"][0] is None else math.exp(record["top_logprobs"][0]),
            "hit": record["top_ids"][0] == record["target_id"],
            "others": "  ".join(visible(text, 20) for text in record["top_tokens"][1 : 1 + _NEXT]),
            "target": visible(record["target"], 40),
            "target_rank": record["target_rank"],
            "kl": _plain(record["kl_layer_final"]),
        }
        for record in _records(view, strings)
        if view.items.numbers.index(record["number"]) < MOST_DRAWN
    ]
    what = "steps" if steps else f"messages (at {position})"
    title = f"{'Transport' if view.lens == TRANSPORT else 'Logit'} lens over {what}"
    target = "the token that the step chose" if steps else "the model's likeliest token"
    note = sentence(f"outlined: {target}", drawn_note(len(view.items), view.items.kind))
    labels = "step and the token it chose" if steps else "message"
    chart = lens_table(cells, title, columns=labels, subtitle=note)
    caption = "The likeliest token if the model ended at this layer; · ↵ ⇥ stand for space, newline and tab."
    if view.lens == TRANSPORT:
        caption += " States were mapped to the last layer by transport operators first."
    return NamedChart(f"{view.lens}_lens_{view.items.kind}", title, chart, caption)


def _text(views: Sequence[LensView], deviation: float | None) -> str:
    parts = []
    if deviation is not None:
        parts.append(f"The last layer read through the model's head gives the stored logits to {deviation:.1e}.")
    of = {(view.lens, view.items.kind): view for view in views}
    for kind in ("steps", "messages"):
        plain, mapped = of.get((LOGIT, kind)), of.get((TRANSPORT, kind))
        if plain is None or mapped is None:
            continue
        by_layer = dict(zip(plain.layers, plain.readings.kl_final_layer.mean(1).tolist(), strict=True))
        pairs = [
            (layer, by_layer[layer], value)
            for layer, value in zip(mapped.layers[:-1], mapped.readings.kl_final_layer.mean(1).tolist(), strict=False)
        ]
        better = sum(value < before for _, before, value in pairs)
        lists = "; ".join(f"layer {layer}: {before:.2f} to {value:.2f}" for layer, before, value in pairs[:8])
        parts.append(
            f"Over {len(plain.items)} {kind} the transport lens has the lower mean KL(final || layer) at {better} of "
            f"{len(pairs)} layers ({lists})."
        )
    return " ".join(parts)
