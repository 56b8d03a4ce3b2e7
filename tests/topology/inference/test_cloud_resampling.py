"""Subsamples: rows and groups drawn without copies, blocks of one matrix, bands and standard errors against truth."""

import numpy as np
import pytest

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.inference.resampling import matched_size, subsample, subsample_bands
from src.topology.measures.measures import statistics


def distances(n=30, d=3, seed=0):
    return Distances.from_points(np.random.default_rng(seed).standard_normal((n, d)))


def mean_distance(block, found):
    return {"mean": float(block.pairs.mean()), "size": float(found.n_points)}


def test_matched_size_is_a_share_of_the_smallest():
    assert matched_size([600, 1319]) == 300
    assert matched_size([600, 101], 0.8) == 80
    with pytest.raises(StrataError, match="fewer than 3"):
        matched_size([5, 100])
    for sizes, share in (([], 0.5), ([10], 0.0), ([10], 1.5)):
        with pytest.raises(StrataError, match="a share in"):
            matched_size(sizes, share)


def test_subsamples_have_no_copies_and_reach_every_row():
    random = np.random.default_rng(0)
    drawn = np.array([subsample(20, 5, random) for _ in range(2000)])
    assert (np.diff(drawn, axis=1) > 0).all()
    counts = np.bincount(drawn.ravel(), minlength=20)
    assert counts == pytest.approx(np.full(20, 500), abs=4 * np.sqrt(500))


def test_whole_groups_are_drawn_but_for_the_last():
    label = np.repeat(np.arange(10), 4)[np.random.default_rng(1).permutation(40)]
    random = np.random.default_rng(2)
    for _ in range(50):
        rows = subsample(40, 14, random, label)
        assert len(np.unique(rows)) == 14
        # 14 = 3 whole groups of 4, and 2 of a fourth
        assert sorted(np.bincount(label[rows], minlength=10).tolist()) == [0] * 6 + [2, 4, 4, 4]
    counts = np.bincount(np.concatenate([subsample(40, 14, random, label) for _ in range(1000)]), minlength=40)
    assert counts == pytest.approx(np.full(40, 350), rel=0.2)


def test_bands_are_of_blocks_of_the_matrix():
    whole = distances()
    band = subsample_bands(whole, mean_distance, 12, draws=7, seed=5)["mean"]
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(5).spawn(7)]
    blocks = [whole.among(subsample(30, 12, random)) for random in streams]
    values = [block.pairs.mean() for block in blocks]
    assert (band.mean, band.sd) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert (band.low, band.high) == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist())
    assert (band.size, band.draws) == (12, 7)


def test_a_subsample_of_all_points_is_the_cloud():
    whole = distances()
    band = subsample_bands(whole, mean_distance, 30, draws=2)["mean"]
    assert band.low == band.high == pytest.approx(whole.pairs.mean())
    assert np.isnan(band.standard_error)


def test_standard_error_of_a_mean_is_that_of_fresh_samples():
    # distances |x_i| + |x_j| make the mean of |x| a statistic of the matrix
    values = np.abs(np.random.default_rng(3).standard_normal(200))
    matrix = values[:, None] + values[None, :]
    np.fill_diagonal(matrix, 0)

    def mean_value(block, _):
        return {"mean": float(block.pairs.mean() / 2)}

    band = subsample_bands(Distances.precomputed(matrix), mean_value, 100, draws=400, max_dimension=0)["mean"]
    assert band.mean == pytest.approx(values.mean(), abs=0.015)
    # sd of the mean of 100 fresh ones; sd over 400 draws is known to 3.5 %
    assert band.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(100), rel=0.12)
    assert band.sd == pytest.approx(band.standard_error * np.sqrt(0.5))


def test_standard_errors_of_topology_are_not_too_small():
    centres = np.random.default_rng(0).standard_normal((12, 8))

    def fresh(n, seed):
        random = np.random.default_rng([9, seed])
        return Distances.from_points(centres[random.integers(12, size=n)] + 0.4 * random.standard_normal((n, 8)))

    def of(block, found):
        return statistics(block, found, block.median, 0.06, 0.02)

    names = ("h0_total", "h1_total", "h1_count", "median_distance")
    truth = [of(block, persistence(block)) for k in range(100) for block in [fresh(50, k)]]
    bands = [subsample_bands(fresh(100, 1000 + k), of, 50, draws=20, seed=k) for k in range(10)]
    for name in names:
        true_sd = np.std([each[name] for each in truth])
        assert 0.8 < np.mean([band[name].standard_error for band in bands]) / true_sd < 1.7, name
        assert np.mean([band[name].mean for band in bands]) == pytest.approx(
            np.mean([each[name] for each in truth]), abs=2 * true_sd
        )


def test_undefined_values_are_left_out_of_the_band():
    def sometimes(block, _):
        return {"value": float("nan") if block.matrix[0, 1] > block.median else 1.0, "never": float("nan")}

    bands = subsample_bands(distances(), sometimes, 10, draws=20)
    assert 0 < bands["value"].draws < 20
    assert bands["value"].mean == 1.0
    assert bands["never"].draws == 0
    assert np.isnan(bands["never"].mean)


def test_seeds_and_threads():
    once = subsample_bands(distances(), mean_distance, 12, draws=6, seed=1)
    assert once == subsample_bands(distances(), mean_distance, 12, draws=6, seed=1, workers=2)
    assert once != subsample_bands(distances(), mean_distance, 12, draws=6, seed=2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"size": 31}, "3 to 30 points"),
        ({"size": 2}, "3 to 30 points"),
        ({"size": 9, "draws": 1}, "2 or more subsamples"),
        ({"size": 9, "groups": np.arange(29)}, "each of the 30 points"),
    ],
)
def test_wrong_requests_are_refused(keys, message):
    with pytest.raises(StrataError, match=message):
        subsample_bands(distances(), mean_distance, **keys)
