import pytest
import torch

from src.transport.bootstrap import Estimate
from src.transport.closed_form import ClosedFormScore
from src.transport.jackknife import JackknifeScore, jackknife_estimate
from src.transport.pairs import LayerPair
from src.transport.scaling import HeldOut, ScalingPoint, Subset
from src.transport.scaling_summary import OverSubsets, growth_of, is_flat

PAIR = LayerPair(2, 3)


def point(fraction, draw, n_rows, r2, pair=PAIR):
    """R2 on all test documents and without each group; on val it is 0.1 less."""
    replicates = torch.tensor(r2, dtype=torch.float64)
    score = JackknifeScore(replicates, replicates, 1 - replicates)
    held_out = HeldOut(ClosedFormScore(r2[0] - 0.1, 0.0, 0.0), score)
    subset = Subset(fraction, draw, (0, 1))
    return ScalingPoint(pair, subset, n_rows, 2, 1.0, 0.1, None, 0.5, False, None, held_out, held_out, held_out)


@pytest.fixture
def points():
    """Two draws; each fraction has twice the rows of the one before, but for one subset."""
    return [
        point(1.0, 0, 800, [0.70, 0.69, 0.71]),
        point(0.25, 0, 200, [0.50, 0.49, 0.51]),
        point(0.25, 1, 200, [0.40, 0.41, 0.39]),
        point(0.5, 1, 200, [0.60, 0.58, 0.62]),
        point(0.5, 0, 400, [0.64, 0.66, 0.62]),
    ]


def test_slopes_are_per_doubling_within_each_draw(points):
    (growth,) = growth_of(points, 0.005)
    # draw 0: 0.06 over one doubling; draw 1: 0.10 over two
    assert growth.slope.estimate.value == pytest.approx((0.06 + 0.05) / 2)
    assert (growth.slope.lowest, growth.slope.highest) == pytest.approx((0.05, 0.06))
    replicates = torch.tensor([0.055, (0.03 + 0.055) / 2, (0.09 + 0.045) / 2], dtype=torch.float64)
    expected = jackknife_estimate(replicates)
    assert (growth.slope.estimate.low, growth.slope.estimate.high) == pytest.approx((expected.low, expected.high))
    assert growth.val_slope == pytest.approx(0.055)


def test_improvement_goes_from_the_smallest_to_the_largest_fraction(points):
    (growth,) = growth_of(points, 0.005)
    assert growth.improvement.estimate.value == pytest.approx((0.2 + 0.3) / 2)
    assert (growth.improvement.lowest, growth.improvement.highest) == pytest.approx((0.2, 0.3))
    assert growth.val_improvement == pytest.approx(0.25)


def test_curves_are_sorted_and_average_their_subsets(points):
    other = [point(f, 0, n, [0.3, 0.3, 0.3], LayerPair(0, 1)) for f, n in ((1.0, 20), (0.5, 10))]
    first, second = growth_of([*points, *other], 0.005)
    assert (first.pair, second.pair) == (LayerPair(0, 1), PAIR)
    assert [at.fraction for at in second.curve] == [0.25, 0.5, 1.0]
    assert [at.n_rows for at in second.curve] == [200, 300, 800]
    assert [[p.subset.draw for p in at.points] for at in second.curve] == [[0, 1], [0, 1], [0]]
    middle = second.curve[1]
    assert (middle.test_r2.estimate.value, middle.val_r2) == pytest.approx((0.62, 0.52))
    assert (middle.test_r2.lowest, middle.test_r2.highest) == pytest.approx((0.60, 0.64))


@pytest.mark.parametrize(
    ("low", "high", "lowest", "highest", "expected"),
    [
        (0.001, 0.004, 0.002, 0.003, "yes"),
        (-0.03, 0.004, -0.02, 0.003, "yes"),
        (0.001, 0.006, 0.002, 0.003, "undecided"),
        (0.001, 0.004, 0.002, 0.006, "undecided"),
        (0.006, 0.009, 0.007, 0.008, "no"),
        (0.006, 0.009, 0.004, 0.008, "undecided"),
        (0.004, 0.009, 0.006, 0.008, "undecided"),
    ],
)
def test_a_curve_is_flat_only_where_neither_subsets_nor_test_documents_speak_against_it(
    low, high, lowest, highest, expected
):
    assert is_flat(OverSubsets(Estimate((lowest + highest) / 2, low, high), lowest, highest), 0.005) == expected
