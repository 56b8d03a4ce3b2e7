"""Whole alignments: planted ones, unrelated ones, their nulls and learning curves; and the notebook's."""

import numpy as np
import pytest
import torch

from src.errors import StrataError
from src.geometry.alignment.alignment import Alignment, align, mismatch
from src.geometry.alignment.fitting import AlignmentSettings, anchor_counts
from src.geometry.alignment.leaving_out import left_one_out
from src.geometry.alignment.maps import fit
from src.geometry.alignment.notebook import notebook_alignment
from src.geometry.alignment.rows import Group, PairedRows, split_tokens
from src.geometry.alignment.scatter import Scatter

ALPHAS = (1e-3, 1e-1, 10.0)
SETTINGS = AlignmentSettings(("orthogonal", "scaled", "ridge", "cca"), ALPHAS, 19, 100, 3, 50, 120, 0)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def paired(x: torch.Tensor, y: torch.Tensor) -> PairedRows:
    group = split_tokens(len(x), (0.7, 0.1, 0.2), 0)
    return PairedRows(x, y, group, np.arange(len(x)), [str(place) for place in range(len(x))])


def aligned(x: torch.Tensor, y: torch.Tensor) -> Alignment:
    return align(paired(x, y), SETTINGS, "cpu", lambda _: None)


@pytest.fixture(scope="module")
def planted() -> Alignment:
    """A rotation at half the size, and noise."""
    x = randn(300, 12)
    return aligned(x, 0.5 * x @ torch.linalg.qr(randn(12, 12, seed=1))[0] + 0.05 * randn(300, 12, seed=2) + 3)


def test_what_is_planted_is_found_beyond_its_null(planted):
    for name in SETTINGS.methods:
        result = planted.maps[name]
        assert result.intervals["cosine"].value > 0.98
        assert result.intervals["csls_p_at_1"].value == 1
        assert result.p == {"cosine": 1 / 20, "explained": 1 / 20}
        assert result.q["cosine"] == pytest.approx(1 / 20)
        assert np.abs(result.null["cosine"]).max() < 0.4
    # the rotation has no scale: right directions, wrong lengths
    assert planted.maps["orthogonal"].intervals["explained"].value < 0.2
    assert planted.maps["scaled"].intervals["explained"].value > 0.97
    assert planted.maps["scaled"].map.settings["scale"] == pytest.approx(0.5, abs=0.02)
    assert planted.maps["mean"].intervals["explained"].value <= 0
    assert not planted.maps["identity"].fitted
    assert planted.maps["identity"].intervals["cosine"].value < 0.4
    assert planted.counts == {"train": 210, "val": 30, "test": 60, "ordered": 0}


def test_unrelated_spaces_fit_their_anchors_and_are_told_apart():
    found = aligned(randn(300, 12), randn(300, 12, seed=5))
    for name in ("orthogonal", "ridge"):
        assert found.maps[name].anchor_cosine > 0.15
        assert found.maps[name].q["cosine"] > 0.05
        assert abs(found.maps[name].intervals["cosine"].value) < 0.15
    assert found.maps["ridge"].intervals["explained"].value < 0.02


def test_the_learning_curve_rises_and_has_no_rotation_below_its_width(planted):
    by_method = {}
    for point in planted.curve:
        by_method.setdefault(point.method, {})[point.anchors] = point.cosine.value
    assert list(by_method["ridge"]) == anchor_counts(210, 3)
    assert min(by_method["orthogonal"]) > 12
    assert by_method["ridge"][210] > by_method["ridge"][6]
    assert by_method["ridge"][210] == pytest.approx(planted.maps["ridge"].intervals["cosine"].value)


def test_a_wider_target_has_a_ceiling():
    y = randn(300, 9)
    found = aligned(y[:, :4], y)
    assert found.ceiling < 0.7
    assert found.maps["ridge"].intervals["explained"].value <= found.ceiling


def test_nothing_is_fitted_on_what_is_scored():
    rows = paired(randn(200, 6), randn(200, 6, seed=1))
    first = align(rows, SETTINGS, "cpu", lambda _: None)
    spoiled = rows.target.clone()
    spoiled[torch.from_numpy(rows.of(Group.TEST))] += 100
    second = align(
        PairedRows(rows.source, spoiled, rows.group, rows.unit, rows.labels), SETTINGS, "cpu", lambda _: None
    )
    for name, result in first.maps.items():
        assert torch.equal(result.map.weight, second.maps[name].map.weight)
        assert torch.equal(result.map.target_centre, second.maps[name].map.target_centre)


def test_two_runs_are_alike_and_too_few_pairs_are_refused(planted):
    again = aligned(*(side for side in (randn(300, 12), randn(300, 12, seed=5))))
    once_more = aligned(*(side for side in (randn(300, 12), randn(300, 12, seed=5))))
    assert again.maps["cca"].intervals == once_more.maps["cca"].intervals
    with pytest.raises(StrataError, match=r"28 pairs to fit on, 4 to choose by and 8 to judge by are too few"):
        aligned(randn(40, 3), randn(40, 3))


def test_every_token_is_held_against_another_one():
    other = mismatch(50, 0)
    assert sorted(other.tolist()) == list(range(50))
    assert (other != np.arange(50)).all()


def test_a_word_that_is_kept_out_alone_is_predicted_as_if_it_were_not_there():
    x, y = randn(80, 4), randn(80, 3, seed=1)
    group = split_tokens(80, (0.7, 0.1, 0.2), 0, np.arange(80) < 6)
    rows = PairedRows(x, y, group, np.arange(80), [""] * 80)
    centre = torch.zeros(3, dtype=torch.float64)
    for method in ("scaled", "ridge"):
        found = left_one_out(rows, np.arange(6), method, (0.1,), centre, "cpu")
        rest = rows.of(Group.TRAIN, Group.ORDERED)
        rest = rows.take(rest[rest != 2])
        train, val = Scatter.of(rest.source, rest.target), rows.take(rows.of(Group.VAL))
        checked = Scatter.of(val.source, val.target, centres=(train.source_centre, train.target_centre))
        by_hand = fit(method, train, checked, (0.1,))
        assert torch.allclose(found[2], (by_hand.centred(x[2:3]) + by_hand.target_centre)[0], atol=1e-8)


def test_the_notebooks_numbers_are_its_own():
    source = randn(900, 10).numpy()
    turn = np.linalg.qr(randn(10, 10, seed=1).numpy())[0]
    target = 0.5 * source @ turn + 0.1 * randn(900, 10, seed=2).numpy() + 1
    found = notebook_alignment(source, target, [*range(9), None]).numbers
    assert (found["anchors"], found["test_tokens"]) == (600, 300)
    # a sum of singular values is no scale (BUG F-1)
    assert found["scale_factor"] > 100
    assert found["l2_mean"] > 1  # as nothing is applied
    assert found["retained_variance"] == pytest.approx(1)
    # a rotation changes no cosine, but PCA's centring and the target's mean do
    assert 0.5 < found["unaligned_r"] < found["relational_r"] < 1
    assert found["share_above_0"] == 1
    assert found["volume_valid_aligned"] == found["volume_valid_target"] == 1000
    assert found["volume_r"] > 0.8


def test_bug_b_1_one_rejected_simplex_shifts_all_later_ones():
    source = randn(900, 10).numpy()
    whole = notebook_alignment(source, source, [])
    spoiled = source.copy()
    spoiled[:40] = spoiled[0]
    shifted = notebook_alignment(source, spoiled, [])
    assert whole.numbers["volume_r"] > 0.999
    assert shifted.numbers["volume_valid_target"] < 1000
    # our own joint mask keeps them together (tests/geometry/simplices)
    assert shifted.numbers["volume_r"] < 0.5


def test_the_notebook_maps_to_a_wider_target_too():
    found = notebook_alignment(randn(300, 5).numpy(), randn(300, 8, seed=1).numpy(), [])
    assert len(found.best) == 50
    assert found.numbers["anchors"] == 200
    assert found.best[0][1] >= found.best[-1][1] >= found.worst[-1][1] >= found.worst[0][1]
