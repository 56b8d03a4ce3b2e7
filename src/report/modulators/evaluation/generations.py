"""What eval_modulator.py shows of texts side by side."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import torch

from src.modulators.evaluation.contrasts import mean_with_interval, within
from src.modulators.evaluation.effects import FROZEN
from src.report.finding import Finding
from src.report.modulators.evaluation.predictions import MODULATED
from src.report.tables import Cell, Table, interval_cell
from src.report.token_text import one_line

# the frozen model's text from other draws
AGAIN = "frozen, other draws"
_SHORT, _LONG = 30, 600


def generations_finding(records: Sequence[Mapping[str, Any]]) -> Finding:
    """Edit distances, the likelihood of the frozen model's texts, and the texts themselves.

    records: `prompt` (number), `mode`, `variant`, `prompt_text`, `text`, `n_tokens`, `identical`, `edits`, `longest`,
    `original_nll` (of the frozen model's text), `original_tokens`.
    """
    greedy = [record for record in records if record["mode"] == "greedy"]
    modulated = [record for record in greedy if record["variant"] == MODULATED]
    same = sum(record["identical"] for record in modulated)
    edits = {
        (mode, variant): _share(records, mode, variant)
        for mode in ("greedy", "sampled")
        for variant in dict.fromkeys(record["variant"] for record in records)
        if variant != FROZEN
    }
    zero = edits.get(("greedy", "zero"))
    beside = "" if zero is None else f" ({_percent(zero)} for the control zero, which only shrinks)"
    text = (
        f"Greedy texts of the modulated model equal the frozen model's after {same} of {len(modulated)} prompts; "
        f"over all of them {_percent(edits['greedy', MODULATED])} of the tokens are edits{beside}.\n\n"
        f"Sampled with the same random numbers it is {_percent(edits['sampled', MODULATED])}; two texts of the frozen "
        f"model from different draws differ by {_percent(edits['sampled', AGAIN])}."
    )
    return Finding(
        text,
        [_measures(records), _side_by_side(greedy)],
        details=[_texts(records)],
        records={"generations": [dict(record) for record in records]},
    )


def _share(records: Sequence[Mapping[str, Any]], mode: str, variant: str) -> float:
    chosen = [record for record in records if (record["mode"], record["variant"]) == (mode, variant)]
    longest = sum(record["longest"] for record in chosen)
    return sum(record["edits"] for record in chosen) / longest if longest else float("nan")


def _measures(records: Sequence[Mapping[str, Any]]) -> Table:
    rows: list[Sequence[Cell]] = []
    for mode, variant in dict.fromkeys((record["mode"], record["variant"]) for record in records):
        chosen = [record for record in records if (record["mode"], record["variant"]) == (mode, variant)]
        groups = torch.tensor([record["prompt"] for record in chosen])
        nll, n, edits, longest = (
            torch.tensor([float(record[key]) for record in chosen], dtype=torch.float64)
            for key in ("original_nll", "original_tokens", "edits", "longest")
        )
        edited = within(mean_with_interval(edits, longest, groups), 0, 1)
        likely = within(mean_with_interval(nll, n, groups), 0, inf)
        is_original = variant == FROZEN
        rows.append(
            [
                mode,
                variant,
                sum(record["identical"] for record in chosen),
                None if is_original else interval_cell(edited.value, edited.low, edited.high),
                None if variant == AGAIN else interval_cell(likely.value, likely.low, likely.high),
            ]
        )
    caption = (
        "Same: texts that equal the frozen model's of the same mode. Edits: insertions, deletions and replacements of "
        "tokens, as a share of the longer text. NLL: of the frozen model's own text under this variant, nats per "
        "token. Brackets: 95 % intervals over prompts. Sampled texts of one prompt are drawn with the same random "
        f"numbers, but for `{AGAIN}`: how far two texts lie apart by chance."
    )
    return Table("Texts side by side", ["mode", "variant", "same", "edits", "NLL of frozen text"], rows, caption)


def _side_by_side(greedy: Sequence[Mapping[str, Any]]) -> Table:
    texts = {(record["prompt"], record["variant"]): record for record in greedy}
    rows: list[Sequence[Cell]] = [
        [
            one_line(record["prompt_text"], _SHORT),
            one_line(record["text"], _SHORT),
            one_line(texts[prompt, MODULATED]["text"], _SHORT),
        ]
        for (prompt, variant), record in texts.items()
        if variant == FROZEN
    ]
    return Table("Greedy texts", ["prompt", FROZEN, MODULATED], rows, "The whole texts are in the report.")


def _texts(records: Sequence[Mapping[str, Any]]) -> Table:
    rows: list[Sequence[Cell]] = [
        [
            record["prompt"],
            record["mode"],
            record["variant"],
            one_line(record["prompt_text"], _LONG),
            one_line(record["text"], _LONG),
            record["edits"],
        ]
        for record in records
    ]
    columns = ["prompt", "mode", "variant", "prompt text", "text", "edits"]
    return Table("All texts", columns, rows, "Edits: tokens, from the frozen model's text of the same mode.")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
