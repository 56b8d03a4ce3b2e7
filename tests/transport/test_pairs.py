import pytest

from src.errors import StrataError
from src.transport.pairs import LayerPair, layer_pairs


def test_named_pairs_are_the_product():
    pairs = layer_pairs([1, 0], [2, 1], 6, "experiment")
    assert pairs == [LayerPair(0, 1), LayerPair(0, 2), LayerPair(1, 1), LayerPair(1, 2)]
    assert layer_pairs(3, 2, 6, "experiment") == [LayerPair(3, 2)]


def test_all_means_whatever_the_model_has_room_for():
    pairs = layer_pairs("all", "all", 4, "experiment")
    assert [(pair.L, pair.L + pair.k) for pair in pairs] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert layer_pairs("all", [2], 4, "experiment") == [LayerPair(0, 2), LayerPair(1, 2)]
    assert layer_pairs([2, 1], "all", 4, "experiment") == [LayerPair(1, 1), LayerPair(1, 2), LayerPair(2, 1)]


@pytest.mark.parametrize(
    ("layers", "leaps", "message"),
    [
        ([6], [1], "experiment: layer 6 is out of range: the model has layers 0..5"),
        ([9], "all", "layer 9 is out of range"),
        ([0, 5], [1], "L=5, k=1 leads to layer 6, and the last one is 5"),
        ("all", [6], "no pair of layers is left"),
        ([], [1], "no pair of layers is left"),
    ],
)
def test_pairs_that_leave_the_model_are_refused(layers, leaps, message):
    with pytest.raises(StrataError) as error:
        layer_pairs(layers, leaps, 6, "experiment")
    assert message in str(error.value)


def test_every_offset_of_every_pair():
    pairs = layer_pairs([0], [2, 1], 6, "experiment", [1, 0, -1, 1])
    assert pairs == [LayerPair(0, k, offset) for k in (1, 2) for offset in (-1, 0, 1)]
    assert [str(pair) for pair in pairs[:3]] == ["L0_k1_j-1", "L0_k1", "L0_k1_j+1"]
    assert [str(pair.target("resid_post")) for pair in pairs[:3]] == [
        "resid_post.1@-1",
        "resid_post.1",
        "resid_post.1@+1",
    ]
    assert all(pair.source("mlp_out").offset == 0 for pair in pairs)
    assert [LayerPair(*pair.identity()) for pair in pairs] == pairs
    assert LayerPair(3, 1).identity() == [3, 1]
