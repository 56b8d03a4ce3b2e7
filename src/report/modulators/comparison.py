"""What train_modulator.py shows of the modulator beside its controls, on test examples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from src.modulators.comparison import ComparedRun, Comparison, MeanLoss
from src.report.artifact_report import NamedChart
from src.report.figures.modulator_comparison import gain_chart
from src.report.finding import Finding
from src.report.tables import Cell, Table, finite_or_none, interval_cell

LEVEL = 0.05
# controls that are the modulator again where that begins at random
_REDRAWS: Mapping[str, tuple[str, ...]] = {"residual": ("random", "shuffled"), "field": ()}
# what a control leaves out, by its name
OF_RESIDUAL: Mapping[str, str] = {
    "zero": "target 0: known tokens shrink, r' = (1 - a) r; strengths are trained",
    "random": "random directions as targets at the start, of the same lengths; all is trained as in the modulator",
    "shuffled": "tokens' vectors permuted over the known tokens at the start; all is trained as in the modulator",
    "constant": "one target for all known tokens, trained, and strengths",
    "shrink": "r' = s r of known tokens, a trained factor s per layer, above 1 or below",
    "lora": "LoRA on the linear layers of the blocks, of as many trained numbers",
}
OF_FIELD: Mapping[str, str] = {
    "zero": "gates of -1: active dimensions shrink by prod (1 - alpha); strengths are trained",
    "random": "gates read as many random features of the active dimensions as simplices would give them",
    "shuffled": "gates of a position read a random earlier one of its text",
    "constant": "gates do not read the residual stream; trained, and strengths",
    "shrink": "x' = s x of active dimensions, a trained factor s per layer, above 1 or below",
    "lora": "LoRA on the linear layers of the blocks, of as many trained numbers",
}


def comparison_finding(
    found: Comparison,
    kind: str,
    train_table: bool,
    documents: Sequence[Mapping[str, Any]],
    group: str = "document",
    init: str | None = None,
) -> Finding:
    """All that is shown of a comparison.

    Args:
        found: the comparison.
        kind: of the modulator: residual or field.
        train_table: of a residual modulator: are tokens' vectors trained?
        documents: records of the losses of each document.
        group: what one unit of the intervals is.
        init: where the modulator began.
    """
    text = "\n\n".join([verdict(found, group), *_remarks(found, kind, train_table, init)])
    metrics = {f"{run.name}/{name}": it.value for run in found.runs for name, it in _numbers(run).items()}
    return Finding(
        text,
        [_table(found, group), *([_paired_table(found, group)] if found.controls else [])],
        _figures(found),
        [_controls_table(found, kind)] if found.controls else [],
        records={"test_losses": [dict(record) for record in documents]},
        files={"comparison.json": asdict(found)},
        metrics={"frozen/nll": found.frozen.value} | metrics,
    )


def verdict(found: Comparison, group: str = "document") -> str:
    """One paragraph: the loss, what it is less the frozen model's, and which controls it is beyond."""
    modulator = found.modulator
    change = modulator.less_frozen
    if change.low <= 0 <= change.high or change.p != change.p:
        against = f"which can't be told from the frozen model's {found.frozen.value:.4f} ({_span(change)})"
    else:
        way = "below" if change.value < 0 else "above"
        against = f"{abs(change.value):.4f} {way} the frozen model's {found.frozen.value:.4f} ({_span(change)})"
    first = (
        f"The modulator's loss is {modulator.nll.value:.4f} nats per token on {found.n_tokens:,} tokens of "
        f"{found.n_documents:,} test {group}s, {against}. "
    )
    if not found.controls:
        return first + "No control was trained, so that what it is due to is not known."
    better, equal, worse = (_names(found, way) for way in (-1, 0, 1))
    helps = change.high < 0
    n_controls = len(found.controls)
    if len(better) == n_controls:
        claim = "it helps beyond what is simpler" if helps else f"but it {_claim(change, 0, 0)}"
        all_of_them = f"every one of its {n_controls} controls" if n_controls > 1 else "its only control"
        return f"{first}It is below {all_of_them} ({_listed(better)}): {claim}."
    how_many = f"{len(better)} of its {n_controls} controls ({_listed(better)})" if better else "none of its controls"
    said = [f"It is below {how_many}"]
    said += [f"can't be told from {_listed(equal)}"] if equal else []
    said += [f"is above {_listed(worse)}"] if worse else []
    return f"{first}{_listed(said)}: it {_claim(change, len(better), len(equal))}."


def _claim(change: MeanLoss, n_better: int, n_equal: int) -> str:
    """What can't be told from something is not said to be equal to it."""
    if not change.high < 0:
        return "does not help" if change.low > 0 else "is not shown to help"
    if n_better:
        return "helps, but is not shown to help beyond all that is simpler"
    return "helps, but is not shown to help beyond what is simpler" if n_equal else "helps less than what is simpler"


def _names(found: Comparison, way: int) -> list[str]:
    """The controls that the modulator is below (-1), above (1), or can't be told from (0)."""
    return [control.name for control in found.controls if _way(control) == way]


def _way(control: ComparedRun) -> int:
    difference, adjusted = control.modulator_less, control.adjusted
    if difference is None or adjusted is None or not adjusted < LEVEL:
        return 0
    return -1 if difference.value < 0 else 1


def _remarks(found: Comparison, kind: str, train_table: bool, init: str | None) -> list[str]:
    remarks = []
    if found.controls:
        remarks.append(
            "Controls are trained on the same batches with the same rates, steps and seeds, and begin with the same "
            f"strengths. {_seeds(found)}"
        )
    if kind == "residual" and any(control.name == "shuffled" for control in found.controls):
        remarks.append(
            "Tokens' vectors are trained (train_table=true): where they begin is all that shuffled and random take "
            "away, so they ask whether the beginning matters."
            if train_table
            else "Tokens' vectors are not trained (train_table=false): shuffled asks whether each token's own vector "
            "matters."
        )
    if init == "random" and (redraws := [it.name for it in found.controls if it.name in _REDRAWS[kind]]):
        remarks.append(
            f"The modulator itself begins at random (init=random): {_listed(redraws)} "
            f"{'is' if len(redraws) == 1 else 'are'} another draw of the same beginning, and a difference to it is one "
            "between seeds."
        )
    return remarks


def _seeds(found: Comparison) -> str:
    if found.n_trainings == 1:
        return (
            "Intervals are over documents alone, for these very trainings: repeats=3 would tell what another seed does."
        )
    return f"Intervals are over documents and over {found.n_trainings} trainings of each."


def _table(found: Comparison, group: str) -> Table:
    columns = ["run", "trained", "NLL", "less frozen"]
    rows: list[list[Cell]] = [["frozen", 0, _cell(found.frozen), None]]
    rows += [[run.name, run.n_trained, _cell(run.nll), _cell(run.less_frozen)] for run in found.runs]
    caption = (
        f"Test {group}s; brackets: 95 % intervals over {_units(found, group)}. trained: numbers that training changes. "
        "NLL: nats per predicted token. less frozen: paired."
    )
    return Table("Loss of the modulator and its controls", columns, rows, caption)


def _paired_table(found: Comparison, group: str) -> Table:
    said = {-1: "better", 0: "can't be told", 1: "worse"}
    rows = [
        [run.name, _cell(run.modulator_less), finite_or_none(run.adjusted), said[_way(run)]]
        for run in found.controls
        if run.modulator_less is not None
    ]
    caption = (
        f"The modulator's NLL less each control's, paired; brackets: 95 % intervals over {_units(found, group)}. p: of "
        f"no difference, corrected for all controls (Holm); better or worse: p < {LEVEL}."
    )
    return Table(
        "The modulator less each control", ["control", "modulator less it", "p (Holm)", "modulator"], rows, caption
    )


def _units(found: Comparison, group: str) -> str:
    return f"{group}s and trainings" if found.n_trainings > 1 else f"{group}s"


def _controls_table(found: Comparison, kind: str) -> Table:
    said = OF_FIELD if kind == "field" else OF_RESIDUAL
    rows: list[list[Cell]] = [[control.name, said[control.name]] for control in found.controls]
    return Table("What the controls are", ["control", "what it is"], rows)


def _figures(found: Comparison) -> list[NamedChart]:
    gains = [_row(run.name, run.less_frozen, run.each, run is found.modulator) for run in found.runs]
    charts = [
        NamedChart(
            "gains",
            "Loss less the frozen model's",
            gain_chart(gains, "nats per token, less frozen", "Loss less the frozen model's"),
            "Left of 0: better than the frozen model. Lines: 95 % intervals; thin marks: single trainings. A control "
            "that lies as far left as the modulator gains the same without what the modulator is about.",
        )
    ]
    paired = [
        _row(run.name, run.modulator_less, (), of_modulator=False)
        for run in found.controls
        if run.modulator_less is not None
    ]
    if paired:
        charts.append(
            NamedChart(
                "beyond_controls",
                "The modulator's loss less each control's",
                gain_chart(paired, "nats per token, modulator less control", "The modulator less each control"),
                "Left of 0: the modulator is better than that control. Lines: 95 % intervals of paired differences, "
                "not corrected for their number (the table's p are).",
            )
        )
    return charts


def _row(name: str, loss: MeanLoss, each: Sequence[float], of_modulator: bool) -> dict[str, Any]:
    ends = {"low": finite_or_none(loss.low), "high": finite_or_none(loss.high)}
    return {"run": name, "value": loss.value, **ends, "each": list(each), "of_modulator": of_modulator}


def _numbers(run: ComparedRun) -> dict[str, MeanLoss]:
    numbers = {"nll": run.nll, "less_frozen": run.less_frozen}
    return numbers if run.modulator_less is None else numbers | {"modulator_less": run.modulator_less}


def _cell(loss: MeanLoss) -> Cell:
    return interval_cell(loss.value, loss.low, loss.high)


def _span(loss: MeanLoss) -> str:
    if loss.low != loss.low:
        return "one document: no interval"
    return f"less frozen {loss.value:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}]"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
