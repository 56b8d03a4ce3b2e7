"""Tables of QK and OV circuits."""

from collections.abc import Sequence

import numpy as np

from src.geometry.circuits.nulls import rejected
from src.geometry.circuits.profile import COPYING, HeadStatistic, LayerMean
from src.report.geometry.circuits.results import SIGNED, TITLES, CircuitResults
from src.report.tables import Cell, Table, finite_or_none

_LISTED = 10


def layer_table(results: CircuitResults) -> Table:
    """Means over heads, beside dealings to other heads."""
    rows: list[list[Cell]] = []
    for each in results.layers:
        row: list[Cell] = [results.place(each)]
        for name in SIGNED:
            statistic = each.statistics[name]
            row += [_short(float(statistic.values.nanmean())), *_strength(statistic.strength)]
        rows.append([*row, _short(float(each.statistics["stable_rank"].values.nanmean()), 2)])
    columns = ["layer", "mass", "off ½", "others", "p", "symm.", "off 0", "others", "p"]
    columns += ["copying", "off 0", "others", "p", "rank"]
    random = results.layers[0].statistics["stable_rank"].random
    expected = "" if random is None else f" ({random[0].mean:.2f} of Gaussian matrices)"
    caption = (
        "Means over heads. mass: of positive eigenvalues of the symmetric part of QK. symm.: tr(AA)/|A|². copying: sum "
        "of OV's eigenvalues over their moduli. off: mean distance from no alignment, whatever its side; others: the "
        f"same with queries (outputs) dealt to other heads' keys (values), p of {results.draws:,} dealings. rank: "
        f"stable rank of QK{expected}."
    )
    return Table("QK and OV circuits by layer", columns, rows, caption)


def _strength(mean: LayerMean | None) -> list[Cell]:
    if mean is None:
        return [None, None, None]
    return [_short(mean.value), _short(mean.test.mean), _short(mean.test.p)]


def _short(value: float, digits: int = 3) -> Cell:
    return finite_or_none(round(value, digits)) if np.isfinite(value) else None


def head_table(results: CircuitResults) -> Table:
    """The heads that are farthest from random matrices."""
    heads = [(place, head) for place, each in enumerate(results.layers) for head in range(each.n_heads)]

    def distance(key: tuple[int, int]) -> float:
        tests = results.layers[key[0]].statistics["positive_mass"].random
        return -abs(tests[key[1]].z) if tests is not None and np.isfinite(tests[key[1]].z) else 0.0

    rows: list[list[Cell]] = []
    for place, head in sorted(heads, key=distance)[:_LISTED]:
        each = results.layers[place]
        overlap = None if each.top_overlap is None else _short(float(each.top_overlap[head]))
        signed = [cell for name in SIGNED for cell in _value_z(each.statistics[name], head)]
        rows.append(
            [results.place(each), head, *signed, _short(float(each.plain["top_eigenvalue_share"][head])), overlap]
        )
    counted = {name: n_beyond_random(results, name) for name in ("positive_mass", COPYING)}
    caption = (
        "By distance of the positive mass from random matrices (z in their standard deviations). Of "
        f"{len(heads)} heads, {counted['positive_mass']} differ in it and {counted[COPYING]} in copying (false "
        f"discovery rate {results.level:g}). top: greatest eigenvalue of the symmetric part, as a share of all moduli. "
        "cos²: of its eigenvector with the mean embedding."
    )
    columns = ["layer", "head", "mass", "z", "symm.", "z", "copying", "z", "top", "cos²"]
    return Table("Heads farthest from random matrices", columns, rows, caption)


def n_beyond_random(results: CircuitResults, name: str) -> int:
    """Heads that differ from random matrices at the false discovery rate."""
    p = {}
    for place, each in enumerate(results.layers):
        p |= {(place, head): test.p for head, test in enumerate(each.statistics[name].random or ())}
    return sum(rejected(p, results.level).values())


def _value(statistic: HeadStatistic | None, head: int) -> Cell:
    return None if statistic is None else finite_or_none(float(statistic.values[head]))


def _value_z(statistic: HeadStatistic, head: int) -> Sequence[Cell]:
    z = None if statistic.random is None else _short(statistic.random[head].z, 1)
    return [_short(float(statistic.values[head])), z]


def all_heads_table(results: CircuitResults) -> Table:
    """Every head."""
    columns = ["layer", "head", *(title for name, title in TITLES.items() if name in results.layers[0].statistics)]
    names = [name for name in TITLES if name in results.layers[0].statistics]
    rows: list[list[Cell]] = [
        [results.place(each), head, *(_value(each.statistics.get(name), head) for name in names)]
        for each in results.layers
        for head in range(each.n_heads)
    ]
    return Table("All heads", columns, rows)


def offset_tables(results: CircuitResults) -> list[Table]:
    """Symmetry by offset of models with rotary positions."""
    turned = [each for each in results.layers if each.offsets]
    if not turned:
        return []
    offsets = list(turned[0].offsets)
    rows: list[list[Cell]] = [
        [results.place(each), *(float(each.offsets[offset].values.nanmean()) for offset in offsets)] for each in turned
    ]
    caption = "Mean over heads of tr(AA)/|A|² of W_q' Rot(D) W_k, for keys D tokens before the query."
    return [Table("Symmetry of QK by offset", ["layer", *(f"D = {offset}" for offset in offsets)], rows, caption)]


def notebook_table(results: CircuitResults) -> Table:
    """The notebook's numbers, the pooled form that it meant, and ours."""
    rows: list[list[Cell]] = []
    for record, each in zip(results.notebook, results.layers, strict=True):
        units, pooled = record["units"], record["pooled"]
        its: list[Cell] = ["not square", None, None, None]
        if units is not None:
            its = [units[name] for name in ("positive_fraction", "symmetry_deviation", "stable_rank", "participation")]
        meant: list[Cell] = (
            [None, None] if pooled is None else [pooled["positive_fraction"], pooled["symmetry_deviation"]]
        )
        ours: list[Cell] = [float(each.statistics[name].values.nanmean()) for name in ("positive_mass", "symmetry")]
        rows.append([results.place(each), *its, *meant, *ours])
    columns = [
        "layer",
        "positive",
        "deviation",
        "rank",
        "participation",
        "pooled A +",
        "pooled dev.",
        "mass",
        "symmetry",
    ]
    caption = (
        "Its positive fraction, symmetry deviation, stable rank and participation (PR) are those of W_q W_k', products "
        "of units across heads that change with the basis of a head although attention does not. pooled A: the form "
        "that was meant, summed over heads. mass, symmetry: ours, means over heads. A fraction of 0.5 and a deviation "
        "of 1.414 are what independent random matrices give."
    )
    return Table("QK as the notebook computes it", columns, rows, caption)
