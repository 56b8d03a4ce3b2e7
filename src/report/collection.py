"""What collect_activations.py shows of a store."""

from collections.abc import Mapping
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.figures.activations import keep_reasons
from src.report.tables import Table

_REASONS = {
    "counted": "counted in statistics",
    "bos": "left out: beginning of sequence",
    "special": "left out: other special token",
    "sink": "left out: attention sink (norm)",
    "non_finite": "left out: NaN or infinite",
    "first": "left out: first token, where there is no BOS",
}


def store_text(summary: Mapping[str, Any]) -> str:
    """What a store holds, in words."""
    layout, check = summary["layout"], summary["hidden_states_check"]
    points = layout["hook_points"]
    text = (
        f"{layout['n_tokens']:,} tokens of {layout['n_sequences']:,} sequences at {len(points)} hook points "
        f"({points[0]} to {points[-1]}), d_model {layout['d_model']}, {layout['storage_dtype']}."
    )
    if check is None or not check["layers_compared"]:
        return f"{text}\n\nThere were no hidden states of the model's own to compare our hooks with."
    return (
        f"{text}\n\nSelf-test: at {check['layers_compared']} layers our hooks and the model's own hidden states "
        f"differ by at most {check['max_difference']:.2g}."
    )


def keep_table(summary: Mapping[str, Any]) -> Table:
    """How many tokens count in statistics, and how many each reason leaves out."""
    counts: dict[str, int] = summary["keep"]
    total = sum(counts.values())
    rows = [[_REASONS[reason], count, count / total] for reason, count in counts.items() if count]
    return Table("Tokens", ["", "tokens", "share"], rows)


def keep_figures(summary: Mapping[str, Any]) -> list[NamedChart]:
    """The tokens left out, by reason; no figure if none is."""
    left_out = {reason: count for reason, count in summary["keep"].items() if count and reason != "counted"}
    if not left_out:
        return []
    records = [
        {"reason": _REASONS[reason].removeprefix("left out: "), "tokens": count} for reason, count in left_out.items()
    ]
    chart = keep_reasons(records, summary["layout"]["n_tokens"])
    caption = (
        "Their activations are stored all the same. Moments, fits and scores pass over them (BOS is scored apart)."
    )
    return [NamedChart("keep", "Tokens left out of statistics", chart, caption)]
