"""What eval_modulator.py shows of a modulator at fixed strengths, beside its controls at the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from torch import Tensor

from src.features.training.reconstruction import Ratio
from src.modulators.evaluation.contrasts import Difference, mean_with_interval, paired_difference
from src.modulators.evaluation.effects import FROZEN, Effects
from src.multiple_tests import holm
from src.report.artifact_report import NamedChart
from src.report.figures.modulator_sweep import sweep_chart
from src.report.finding import Finding
from src.report.modulators.evaluation.predictions import LEVEL, MODULATED
from src.report.tables import Cell, Table, finite_or_none, interval_cell

# the published notebook names these for one "phase boundary", and derives none of them (spec G11)
_NOTEBOOK = (0.29154, 0.29514, 0.35)


@dataclass(frozen=True, eq=False)
class _Point:
    """One strength: every variant's NLL, KL and cosine, and the modulated model's difference to each."""

    alpha: float
    nll: Mapping[str, Ratio]
    kl: Mapping[str, Ratio]
    cosine: Mapping[str, Ratio]
    change: Mapping[str, Ratio]
    less: Mapping[str, Difference]

    @property
    def controls(self) -> list[str]:
        """Names of the controls."""
        return [name for name in self.less if name != FROZEN]

    @property
    def best(self) -> str | None:
        """The control that predicts best."""
        return min(self.controls, key=lambda name: self.nll[name].value, default=None)

    @property
    def p(self) -> float:
        """That it is not better than every control: the largest of their p (an intersection-union test)."""
        if any(self.less[name].ratio.value >= 0 for name in self.controls):
            return 1.0
        return max((self.less[name].p for name in self.controls), default=1.0)


def sweep_finding(
    effects: Mapping[float, Mapping[str, Effects]],
    groups: Int[Tensor, " example"],
    unreached: Sequence[float],
    unit: str,
    seed: int,
) -> Finding:
    """NLL, KL and cosine at each strength.

    effects: by strength: `frozen`, `modulated` and controls. unreached: strengths that the modulator can't have.
    """
    points = [_point(alpha, found, groups, seed) for alpha, found in effects.items()]
    records = [_record(point, name) for point in points for name in point.nll]
    out_of_reach = (
        f" It can't have the strengths {', '.join(f'{alpha:g}' for alpha in unreached)}." if unreached else ""
    )
    note = (
        " It was trained at its own strengths, not at these: what training at each of them would reach is another "
        "question."
    )
    if any(alpha in _NOTEBOOK for alpha in effects):
        note += (
            " The published notebook calls 0.29154 (elsewhere 0.29514, and 0.35 as a ceiling) a phase boundary and "
            "derives none of them: here it is a number among others."
        )
    return Finding(
        _found(points, unit) + out_of_reach + note,
        [_table(points, unit)],
        [
            NamedChart(
                "sweep",
                "Fixed strengths",
                sweep_chart(records, [name for name in points[0].nll if name != FROZEN]),
                f"Left: NLL less the frozen model's (bands: 95 % intervals over {unit}; small changes are drawn to a "
                "linear scale, large ones to a logarithmic one); below 0 is better. "
                "Right: mean cosine of final states with the frozen model's. Where a control's line lies on the "
                "modulator's, all of the effect comes of the strength.",
            )
        ],
        records={"sweep": records},
    )


def _point(alpha: float, effects: Mapping[str, Effects], groups: Int[Tensor, " example"], seed: int) -> _Point:
    n = effects[FROZEN].n_predicted
    nll = {name: mean_with_interval(each.nll, n, groups) for name, each in effects.items()}
    less = {
        name: paired_difference(effects[MODULATED].nll, each.nll, n, groups, seed)
        for name, each in effects.items()
        if name != MODULATED
    }
    return _Point(
        alpha,
        nll,
        {name: mean_with_interval(each.kl, n, groups) for name, each in effects.items()},
        {name: mean_with_interval(each.cosine, each.n_states, groups) for name, each in effects.items()},
        {name: mean_with_interval(each.nll - effects[FROZEN].nll, n, groups) for name, each in effects.items()},
        less,
    )


def _found(points: Sequence[_Point], unit: str) -> str:
    changes = {point.alpha: point.change[MODULATED].value for point in points}
    least, most = min(changes, key=changes.__getitem__), max(changes, key=changes.__getitem__)
    first = (
        f"With its strength fixed at {min(changes):g} to {max(changes):g}, the modulated model's NLL less the frozen "
        f"model's is {changes[least]:.3g} (at {least:g}) to {changes[most]:.3g} (at {most:g}) nats per token"
    )
    if len(points) == 1:
        first = (
            f"With its strength fixed at {least:g}, the modulated model's NLL less the frozen model's is "
            f"{changes[least]:.3g} nats per token"
        )
    if not points[0].controls:
        return f"{first}. It has no controls of equal strength."
    corrected = holm(np.array([point.p for point in points]))
    better = [f"{point.alpha:g}" for point, p in zip(points, corrected, strict=True) if p <= LEVEL]
    where = f"at {', '.join(better)}" if better else "at none of them"
    return (
        f"{first}; it predicts better than every control of the same strength {where} (sign flips over {unit}, Holm's "
        "correction over strengths)."
    )


def _table(points: Sequence[_Point], unit: str) -> Table:
    rows: list[Sequence[Cell]] = []
    for point in points:
        best = point.best
        rows.append(
            [
                point.alpha,
                point.change[MODULATED].value,
                best,
                None if best is None else _cell(point.less[best].ratio),
                point.kl[MODULATED].value,
                None if best is None else point.kl["zero"].value,
                point.cosine[MODULATED].value,
                None if best is None else point.cosine["zero"].value,
            ]
        )
    caption = (
        "alpha: of all layers. Less frozen, less best control: NLL in nats per token, brackets: 95 % intervals over "
        f"{unit}, paired. KL (from the frozen model's predictions) and cosine (of final states) also of the control "
        "zero, which only shrinks."
    )
    columns = ["alpha", "less frozen", "best control", "less best control", "KL", "of zero", "cosine", "of zero "]
    return Table("Fixed strengths", columns, rows, caption)


def _record(point: _Point, name: str) -> dict[str, Cell]:
    record: dict[str, Cell] = {"alpha": point.alpha, "variant": name}
    for key, values in (("nll", point.nll), ("change", point.change), ("kl", point.kl), ("cosine", point.cosine)):
        ratio = values[name]
        ends = map(finite_or_none, (ratio.value, ratio.low, ratio.high))
        record |= dict(zip((key, f"{key}_low", f"{key}_high"), ends, strict=True))
    return record


def _cell(ratio: Ratio) -> Cell:
    return interval_cell(ratio.value, ratio.low, ratio.high)
