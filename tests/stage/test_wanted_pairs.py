"""Which operators a stage takes: pairs that are named, or whatever there are."""

from types import SimpleNamespace

import pytest

from src.errors import StrataError
from src.stage.operators import wanted_pairs, without_shifted_rows
from src.transport.pairs import LayerPair

THERE = [LayerPair(0, 1), LayerPair(0, 2), LayerPair(2, 1), LayerPair(0, 1, 1)]
KEYS = "eval.Ls, eval.ks"


@pytest.mark.parametrize(
    ("layers", "leaps", "offsets", "expected"),
    [
        ("all", "all", "all", None),
        ("all", "all", 0, [LayerPair(0, 1), LayerPair(0, 2), LayerPair(2, 1)]),
        # of a layer: those there are; pairs without an operator are not missed
        (0, "all", 0, [LayerPair(0, 1), LayerPair(0, 2)]),
        ("all", 1, 0, [LayerPair(0, 1), LayerPair(2, 1)]),
        ("all", "all", 1, [LayerPair(0, 1, 1)]),
        (0, 1, "all", [LayerPair(0, 1), LayerPair(0, 1, 1)]),
        # pairs that are named are all wanted, so that a missing one is told of
        ([0, 1], 1, 0, [LayerPair(0, 1), LayerPair(1, 1)]),
        ([0, 1], 1, "all", [LayerPair(0, 1), LayerPair(0, 1, 1), LayerPair(1, 1)]),
    ],
)
def test_all_stands_for_what_there_is(layers, leaps, offsets, expected):
    found = wanted_pairs(layers, leaps, offsets, THERE, 5, KEYS)
    assert (None if found is None else sorted(found)) == (None if expected is None else sorted(expected))


@pytest.mark.parametrize(
    ("layers", "leaps", "offsets", "message"),
    [
        (1, "all", 0, r"no operator is of eval.Ls=1 and eval.ks=all \(there: L0_k1, L0_k1_j\+1, L0_k2, L2_k1\)"),
        ("all", [3, 4], 0, r"no operator is of eval.Ls=all and eval.ks=\[3,4\]"),
        (5, "all", 0, "layer 5 is out of range"),
        ("all", "all", 2, r"eval.position_offsets: no operator has offset 2 \(there: 0, 1\)"),
        (2, "all", 1, r"eval.position_offsets: no operator has offset 1 \(there: 0\)"),
    ],
)
def test_what_there_is_none_of_is_told(layers, leaps, offsets, message):
    with pytest.raises(StrataError, match=message):
        wanted_pairs(layers, leaps, offsets, THERE, 5, KEYS)


def test_where_offset_0_alone_is_wanted_operators_of_all_rows_come_first():
    every, fewer = (SimpleNamespace(meta=SimpleNamespace(identity={"row_offsets": it})) for it in ([0], [-1, 0, 1]))
    assert without_shifted_rows([every, fewer], 0) == [every]  # type: ignore[list-item]
    assert without_shifted_rows([every, fewer], "all") == [every, fewer]  # type: ignore[list-item]
    assert without_shifted_rows([fewer], [0]) == [fewer]  # type: ignore[list-item]
