"""What components of the residual stream add: to the final state, and to a token's logit."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from src.report.artifact_report import NamedChart
from src.report.figures.run_analysis import cell_map, layer_panels, part_bars
from src.report.finding import Finding
from src.report.lenses.rows import MOST_DRAWN, drawn_note, item_names, sentence
from src.report.tables import Cell, Table
from src.report.token_text import visible
from src.scenarios.lenses.attribution import Attribution
from src.scenarios.lenses.decomposition import Decomposition
from src.scenarios.lenses.items import Items

_LISTED = 12
# logits below which rounding, bias and soft cap are not drawn
_VISIBLE = 5e-3
_DOTS = 60  # rows that are drawn as dots beside their mean


def part_name(name: str, layer: int | None) -> str:
    """As in `attn_out 3`."""
    return name if layer is None else f"{name} {layer}"


def decomposition_finding(parts: Sequence[tuple[Items, Decomposition]]) -> Finding:
    """What makes the final state, for steps and messages."""
    rows: list[dict[str, Any]] = []
    records, lines = [], []
    for items, found in parts:
        for place, (name, layer) in enumerate(found.names):
            records += [
                {
                    "kind": items.kind,
                    "number": number,
                    "component": name,
                    "layer": layer,
                    "norm": float(found.norms[place, row]),
                    "share": float(found.shares[place, row]),
                    "cosine": float(found.cosines[place, row]),
                }
                for row, number in enumerate(items.numbers)
            ]
            if layer is not None:
                measures = {"share of the final state": found.shares, "norm": found.norms, "cosine": found.cosines}
                lines += [
                    {
                        "measure": measure,
                        "series": f"{name}, {items.kind}",
                        "layer": layer,
                        "value": float(values[place].mean()),
                    }
                    for measure, values in measures.items()
                ]
        rows += [
            {"kind": items.kind, "number": number, "identity_error": float(found.error[row])}
            for row, number in enumerate(items.numbers)
        ]
    title = "What makes the final state"
    chart = layer_panels(lines, title, subtitle="means over rows")
    caption = (
        "Shares <component, final> / |final|² add up to 1 with the embeddings' share; they may be below 0 or above 1 "
        "where components cancel each other."
    )
    return Finding(
        _decomposition_text(parts),
        [_share_table(parts)],
        [NamedChart("decomposition", title, chart, caption)],
        records={"decomposition": records, "decomposition_errors": rows},
        metrics={f"decomposition/{items.kind}/identity_error": float(found.error.max()) for items, found in parts},
    )


def _decomposition_text(parts: Sequence[tuple[Items, Decomposition]]) -> str:
    worst = max(float(found.error.max()) for _, found in parts)
    if all(found.holds for _, found in parts):
        return f"Embeddings and increments of all blocks add up to the final state to {worst:.1e} of its norm."
    return (
        f"Embeddings and increments do not add up to the final state (they miss it by {worst:.0%} of its norm): this "
        "model normalises after adding, so shares are no parts of a sum."
    )


def _share_table(parts: Sequence[tuple[Items, Decomposition]]) -> Table:
    rows: list[list[Cell]] = []
    for items, found in parts:
        order = found.shares.mean(1).abs().argsort(descending=True)[:_LISTED].tolist()
        for place in order:
            values = (found.shares, found.norms, found.cosines)
            means: list[Cell] = [float(value[place].mean()) for value in values]
            rows.append([items.kind, part_name(*found.names[place]), *means])
    caption = f"The {_LISTED} largest shares at most, means over rows."
    return Table("Residual decomposition", ["over", "component", "share", "norm", "cosine"], rows, caption)


def attribution_finding(
    items: Items,
    names: Sequence[tuple[str, int | None]],
    chosen: Attribution,
    lead: Attribution,
    tokens: Sequence[str],
    others: Sequence[str],
) -> Finding:
    """What makes each step's token likely. tokens, others: the chosen token and its runner-up at each step."""
    columns = item_names(items)
    words = [part_name(*name) for name in names] + ["rounding", "bias", "after the head"]
    kinds = [name for name, _ in names] + ["rest"] * 3
    of_chosen, of_lead = _all_parts(chosen), _all_parts(lead)
    records = [
        {
            "step": number,
            "token": tokens[row],
            "runner_up": others[row],
            "component": names[place][0] if place < len(names) else words[place],
            "layer": names[place][1] if place < len(names) else None,
            "logit": float(of_chosen[place, row]),
            "lead": float(of_lead[place, row]),
        }
        for row, number in enumerate(items.numbers)
        for place in range(len(words))
    ]
    sums = [
        {
            "step": number,
            "token": tokens[row],
            "runner_up": others[row],
            "logit": float(chosen.logit[row]),
            "sum_of_parts": float(of_chosen[:, row].sum()),
            "error": float(chosen.error[row]),
            "lead": float(lead.logit[row]),
            "lead_sum_of_parts": float(of_lead[:, row].sum()),
            "lead_error": float(lead.error[row]),
        }
        for row, number in enumerate(items.numbers)
    ]
    shown = [place for place in range(len(words)) if place < len(names) or float(of_lead[place].abs().max()) > _VISIBLE]
    cells = [
        {"row": words[place], "column": columns[row], "value": float(of_lead[place, row])}
        for place in shown
        for row in range(min(len(items), MOST_DRAWN))
    ]
    bars = [
        {"part": words[place], "kind": kinds[place], "value": float(of_lead[place].mean()), "row": None}
        for place in shown
    ] + [
        {"part": words[place], "kind": kinds[place], "value": float(of_lead[place, row]), "row": columns[row]}
        for place in shown
        for row in range(min(len(items), _DOTS))
    ]
    caption = (
        "Direct effects alone: what a component writes that later blocks read counts for those. The final norm's "
        "division is taken as it was."
    )
    title, mean_title = "What puts the chosen token before its runner-up", "What puts it there, mean over steps"
    by_step = cell_map(
        cells,
        title,
        rows="component",
        columns="step and the token it chose",
        label="logits",
        diverging=True,
        subtitle=sentence("chosen minus runner-up", drawn_note(len(items), "steps")),
    )
    by_part = part_bars(bars, mean_title, label="chosen minus runner-up, logits", subtitle="dots: single steps")
    error = max(float(chosen.error.max()), float(lead.error.max()))
    return Finding(
        f"The parts of all logits add up to what the model gave to {error:.1e} of the largest part.",
        [_attribution_table(items, names, chosen, lead, tokens, others)],
        [
            NamedChart("attribution_steps", title, by_step, caption),
            NamedChart("attribution_mean", mean_title, by_part, caption),
        ],
        records={"attribution": records, "attribution_sums": sums},
        metrics={"attribution/error": error},
    )


def _all_parts(found: Attribution) -> Float[Tensor, "part row"]:
    rest = (found.rounding, found.bias, found.after_head)
    return found.components.new_tensor([*found.components.tolist(), *(part.tolist() for part in rest)])


def _attribution_table(
    items: Items,
    names: Sequence[tuple[str, int | None]],
    chosen: Attribution,
    lead: Attribution,
    tokens: Sequence[str],
    others: Sequence[str],
) -> Table:
    rows: list[list[Cell]] = []
    for row, number in enumerate(items.numbers):
        order = lead.components[:, row].argsort(descending=True).tolist()
        most, least = (
            [f"{part_name(*names[p])} {lead.components[p, row]:+.2f}" for p in ps] for ps in (order[:3], order[-2:])
        )
        rows.append(
            [
                str(number),
                visible(tokens[row], 20),
                visible(others[row], 20),
                float(chosen.logit[row]),
                float(lead.logit[row]),
                ", ".join(most),
                ", ".join(reversed(least)),
            ]
        )
    columns = ["step", "token", "runner-up", "logit", "lead", "most for it", "most against it"]
    caption = "lead: logit of the token minus that of the likeliest other one, and the components that add most to it."
    return Table("Direct logit attribution", columns, rows, caption)
