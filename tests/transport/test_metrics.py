import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.metrics.pairwise import paired_cosine_distances

from src.errors import StrataError
from src.transport.bootstrap import DocumentBootstrap
from src.transport.metrics import QUANTILES, ErrorSums, ResidualMetrics, TruthSums, residual_metrics, skill


def predictions(n_sequences: int, length: int, d: int, seed: int = 0, clustered: float = 1.0):
    """Truth with a large mean, and predictions whose errors share a part within each sequence."""
    rng = np.random.default_rng(seed)
    sequence = np.repeat(np.arange(n_sequences), length)
    truth = rng.standard_normal((len(sequence), d)) * np.linspace(0.5, 3, d) + 500
    shared = clustered * rng.standard_normal((n_sequences, d))[sequence]
    prediction = truth + 0.3 * shared + 0.3 * rng.standard_normal(truth.shape)
    return prediction, truth, sequence


def sums_of(prediction, truth, sequence, replicates=0, reference=500.0) -> tuple[TruthSums, ErrorSums]:
    """The sums that the metrics are made of, row by row with each row's own weight."""
    indices, place = np.unique(sequence, return_inverse=True)
    weights = DocumentBootstrap(replicates, seed=1).weights(torch.from_numpy(indices))[:, place]
    shifted = truth - reference
    cosine = (truth * prediction).sum(1) / (np.linalg.norm(truth, axis=1) * np.linalg.norm(prediction, axis=1))
    rows = (np.ones(len(truth)), shifted, shifted**2, (truth - prediction) ** 2, cosine)
    count, total, squares, sse, cosines = (weights @ torch.from_numpy(array) for array in rows)
    return TruthSums(count, total, squares), ErrorSums(sse, cosines)


def metrics_of(prediction, truth, sequence, replicates=0, reference=500.0) -> ResidualMetrics:
    return residual_metrics(*sums_of(prediction, truth, sequence, replicates, reference))


def test_point_estimates_equal_scikit_learn():
    prediction, truth, sequence = predictions(20, 9, 6)
    metrics = metrics_of(prediction, truth, sequence)
    per_dimension = r2_score(truth, prediction, multioutput="raw_values")
    assert metrics.n_rows == 180
    assert metrics.r2_uniform.value == pytest.approx(per_dimension.mean(), abs=1e-9)
    assert metrics.r2_variance_weighted.value == pytest.approx(
        r2_score(truth, prediction, multioutput="variance_weighted"), abs=1e-9
    )
    assert [metrics.r2_quantiles[q].value for q in QUANTILES] == pytest.approx(np.quantile(per_dimension, QUANTILES))
    assert metrics.mse.value == pytest.approx(mean_squared_error(truth, prediction), rel=1e-12)
    assert metrics.cosine.value == pytest.approx(1 - paired_cosine_distances(truth, prediction).mean(), rel=1e-12)
    assert np.isnan([metrics.mse.low, metrics.mse.high]).all()


def test_constant_dimensions_count_as_scikit_learn_counts_them():
    prediction, truth, sequence = predictions(20, 9, 6)
    truth[:, 1] = prediction[:, 1] = 7.0
    truth[:, 2] = -1.0
    metrics = metrics_of(prediction, truth, sequence)
    assert metrics.r2_uniform.value == pytest.approx(r2_score(truth, prediction), abs=1e-9)
    assert metrics.r2_quantiles[0.05].value < 0.5 < metrics.r2_quantiles[0.95].value
    assert metrics.r2_variance_weighted.value == pytest.approx(
        r2_score(truth, prediction, multioutput="variance_weighted"), abs=1e-9
    )
    truth[:] = prediction[:] = 3.0
    assert metrics_of(prediction, truth, sequence).r2_variance_weighted.value == 1.0


def test_intervals_match_resampling_whole_sequences_by_brute_force():
    prediction, truth, sequence = predictions(150, 6, 4)
    metrics = metrics_of(prediction, truth, sequence, replicates=1500)
    rng = np.random.default_rng(0)
    rows_of = [np.flatnonzero(sequence == s) for s in range(150)]
    draws = {"r2_uniform": [], "r2_variance_weighted": [], "mse": [], "cosine": []}
    for _ in range(1000):
        rows = np.concatenate([rows_of[s] for s in rng.integers(0, 150, 150)])
        y, error = truth[rows], (prediction - truth)[rows]
        sse, sst = (error**2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
        draws["r2_uniform"].append((1 - sse / sst).mean())
        draws["r2_variance_weighted"].append(1 - sse.sum() / sst.sum())
        draws["mse"].append((error**2).mean())
        draws["cosine"].append(1 - paired_cosine_distances(y, y + error).mean())
    for name, values in draws.items():
        estimate = getattr(metrics, name)
        low, high = np.quantile(values, [0.025, 0.975])
        assert estimate.low < estimate.value < estimate.high
        assert estimate.high - estimate.low == pytest.approx(high - low, rel=0.12)
        assert estimate.low == pytest.approx(low, abs=0.1 * (high - low))
        assert estimate.high == pytest.approx(high, abs=0.1 * (high - low))


def test_interval_of_a_mean_is_the_closed_form_over_sequences_not_rows():
    prediction, truth, sequence = predictions(300, 8, 5, clustered=3.0)
    mse = metrics_of(prediction, truth, sequence, replicates=2000).mse
    of_sequences = ((prediction - truth) ** 2).mean(1).reshape(300, 8).mean(1)
    width = 2 * 1.96 * of_sequences.std() / np.sqrt(300)
    assert mse.high - mse.low == pytest.approx(width, rel=0.08)
    of_rows = ((prediction - truth) ** 2).mean(1)
    assert mse.high - mse.low > 1.5 * (2 * 1.96 * of_rows.std() / np.sqrt(2400))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        sequence = np.repeat(np.arange(60), 3)
        error = np.repeat(rng.standard_normal((60, 1)), 3, axis=0)
        truth = rng.standard_normal((180, 1))
        mse = metrics_of(truth + error, truth, sequence, 200, reference=0.0).mse
        covered += mse.low <= 1.0 <= mse.high
    assert 0.86 <= covered / 150 <= 0.99


def test_skill_is_paired():
    prediction, truth, sequence = predictions(80, 5, 4)

    def errors(predicted):
        return sums_of(predicted, truth, sequence, replicates=400)[1]

    baseline = prediction + 0.5
    ours, theirs = errors(prediction), errors(baseline)
    found = skill(ours, theirs)
    assert found.value == pytest.approx(1 - ((prediction - truth) ** 2).sum() / ((baseline - truth) ** 2).sum())
    assert found.low < found.value < found.high
    same = skill(ours, errors(prediction))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    # in every resample of sequences the errors of one predictor are 1.5 times those of the other
    proportional = skill(ours, errors(truth + 1.5 * (prediction - truth)))
    assert (proportional.value, proportional.low, proportional.high) == pytest.approx((5 / 9, 5 / 9, 5 / 9), abs=1e-12)


def test_a_far_reference_costs_little():
    prediction, truth, sequence = predictions(20, 9, 6)
    far = metrics_of(prediction, truth, sequence, reference=0.0)
    assert far.r2_uniform.value == pytest.approx(r2_score(truth, prediction), abs=1e-8)


def test_nothing_to_score_and_nothing_finite_are_refused():
    prediction, truth, sequence = predictions(4, 3, 2)
    with pytest.raises(StrataError, match="split is empty"):
        metrics_of(prediction[:0], truth[:0], sequence[:0])
    truth_sums, errors = sums_of(prediction, truth, sequence)
    errors.sse[0, 1] = float("nan")
    with pytest.raises(StrataError, match="NaN or inf"):
        residual_metrics(truth_sums, errors)
