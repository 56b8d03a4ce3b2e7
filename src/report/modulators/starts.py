"""Trainings beside each other: their losses over the steps, and whether strengths from several starts meet."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.figures.modulator_training import val_curves
from src.report.finding import Finding
from src.report.tables import Cell, Table

# of the distance between starts that is left: strengths that have met, and that have not moved towards each other
_MET, _STAYED = 0.1, 0.8


def curves_finding(histories: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]], frozen: float) -> Finding:
    """Val losses of all runs in one figure. histories: by what was trained and its seed, each its history.json."""
    records = [
        {"run": run, "seed": seed, "step": record["step"], "less_frozen": record["val"] - frozen}
        for (run, seed), history in histories.items()
        for record in history
        if record.get("val") is not None
    ]
    chart = val_curves(records, "Loss on val examples over training")
    caption = (
        "One line for each training, of one colour where only seeds differ; dashed: the frozen model. Beyond 0.01 nats "
        "the scale is logarithmic. The state at the lowest point of a line is what was kept and is "
        "compared on test examples."
    )
    return Finding("", figures=[NamedChart("val_curves", "Loss on val examples over training", chart, caption)])


def starts_finding(trainings: Sequence[Mapping[str, Any]]) -> Finding:
    """Whether trainings of one modulator from several strengths end at one. trainings: of each its training.json.

    Distances are of logits, between the highest and the lowest of the trainings, the largest over layers and parts.
    """
    starts, ends = ([_logits(each[key]) for each in trainings] for key in ("strengths_at_start", "strengths"))
    before, after = _spread(starts), _spread(ends)
    left = after / before if before else math.nan
    fixed = all(each["reach"] == 0 for each in trainings)
    best = min(trainings, key=lambda each: each["val"])
    lowest, highest = best["val"], max(each["val"] for each in trainings)
    alphas = ", ".join(f"{_mean(each['strengths_at_start']):.3g}" for each in trainings)
    losses = (
        f"Val losses lie between {lowest:.4f} and {highest:.4f} nats per token; the lowest is that of the start at "
        f"{_mean(best['strengths_at_start']):.3g}."
    )
    if fixed:
        text = f"Strengths were held at {alphas}, and all else was trained at each of them. {losses}"
    else:
        word = "meet" if left < _MET else "do not meet" if left > _STAYED else "come closer but do not meet"
        text = (
            f"Strengths from {len(trainings)} starts ({alphas}) {word}: {after:.2f} of {before:.2f} logits between "
            f"them are left where training was best. {losses}"
        )
        if left >= _MET:
            text += " Where alpha ends depends on where it began: it is no property of the model."
            if spent := sum(_is_spent(each) for each in trainings):
                text += (
                    f" {spent} of {len(trainings)} are near the end of their reach, though: with more steps or a "
                    "higher training.strength_lr they would have gone on."
                )
    rows: list[Sequence[Cell]] = [
        [
            _mean(each["strengths_at_start"]),
            _mean(each["strengths"]),
            min(one["alpha"] for one in each["strengths"]),
            max(one["alpha"] for one in each["strengths"]),
            min(one["lowest"] for one in each["strengths"]),
            max(one["highest"] for one in each["strengths"]),
            each["best_step"],
            each["val"],
        ]
        for each in trainings
    ]
    columns = ["start", "mean kept", "lowest kept", "highest kept", "reach from", "to", "step", "val loss"]
    caption = "Over layers and parts. Losses on val examples choose the step, so the lowest ones flatter."
    return Finding(
        text,
        [Table("Strengths from several starts", columns, rows, caption)],
        files={"starts.json": {"trainings": list(trainings), "distance_at_start": before, "distance_kept": after}},
    )


def _logits(strengths: Sequence[Mapping[str, Any]]) -> list[float]:
    return [math.log(max(each["alpha"], 1e-12) / max(1 - each["alpha"], 1e-12)) for each in strengths]


def _is_spent(training: Mapping[str, Any]) -> bool:
    """Whether most strengths went most of the way that the learning rates let them go."""
    start, end, low, high = (
        _logits([{"alpha": each[key]} for each in training[which]])
        for which, key in (
            ("strengths_at_start", "alpha"),
            ("strengths", "alpha"),
            ("strengths", "lowest"),
            ("strengths", "highest"),
        )
    )
    used = [
        (b - a) / ((top if b > a else bottom) - a) if b != a else 0.0
        for a, b, bottom, top in zip(start, end, low, high, strict=True)
    ]
    return sum(share > _STAYED for share in used) > len(used) / 2


def _spread(logits: Sequence[Sequence[float]]) -> float:
    return max(max(values) - min(values) for values in zip(*logits, strict=True))


def _mean(strengths: Sequence[Mapping[str, Any]]) -> float:
    return sum(each["alpha"] for each in strengths) / len(strengths)
