import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.metrics.pairwise import paired_cosine_distances

from src.errors import StrataError
from src.transport.metrics import QUANTILES, ResidualTally, SequenceBootstrap


def predictions(n_sequences: int, length: int, d: int, seed: int = 0, clustered: float = 1.0):
    """Truth with a large mean, and predictions whose errors share a part within each sequence."""
    rng = np.random.default_rng(seed)
    sequence = np.repeat(np.arange(n_sequences), length)
    truth = rng.standard_normal((len(sequence), d)) * np.linspace(0.5, 3, d) + 500
    shared = clustered * rng.standard_normal((n_sequences, d))[sequence]
    prediction = truth + 0.3 * shared + 0.3 * rng.standard_normal(truth.shape)
    return prediction, truth, sequence


def tally_of(prediction, truth, sequence, replicates=0, batch=64, reference=None) -> ResidualTally:
    reference = torch.full((truth.shape[1],), 500.0) if reference is None else reference
    tally = ResidualTally(reference, SequenceBootstrap(replicates, seed=1))
    for rows in torch.arange(len(truth)).split(batch):
        tally.update(*(torch.from_numpy(array)[rows] for array in (prediction, truth, sequence)))
    return tally


def test_point_estimates_equal_scikit_learn():
    prediction, truth, sequence = predictions(20, 9, 6)
    metrics = tally_of(prediction, truth, sequence).result()
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
    tally = tally_of(prediction, truth, sequence)
    np.testing.assert_allclose(
        tally.r2_of_dimensions(), r2_score(truth, prediction, multioutput="raw_values"), rtol=0, atol=1e-9
    )
    assert tally.result().r2_variance_weighted.value == pytest.approx(
        r2_score(truth, prediction, multioutput="variance_weighted"), abs=1e-9
    )
    truth[:] = prediction[:] = 3.0
    assert tally_of(prediction, truth, sequence).result().r2_variance_weighted.value == 1.0


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(60)), batch=st.integers(1, 60), cut=st.integers(1, 59))
def test_results_depend_on_neither_order_nor_batching_nor_merging(order, batch, cut):
    prediction, truth, sequence = predictions(12, 5, 3)
    whole = tally_of(prediction, truth, sequence, replicates=20).result()
    first, second = np.array(order[:cut]), np.array(order[cut:])
    tally = tally_of(prediction[first], truth[first], sequence[first], 20, batch)
    tally.merge(tally_of(prediction[second], truth[second], sequence[second], 20, batch))
    other = tally.result()
    for name in ("r2_uniform", "r2_variance_weighted", "mse", "cosine"):
        ours, expected = getattr(other, name), getattr(whole, name)
        assert (ours.value, ours.low, ours.high) == pytest.approx(
            (expected.value, expected.low, expected.high), abs=1e-9
        )


def test_intervals_match_resampling_whole_sequences_by_brute_force():
    prediction, truth, sequence = predictions(150, 6, 4)
    metrics = tally_of(prediction, truth, sequence, replicates=1500, batch=900).result()
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
    mse = tally_of(prediction, truth, sequence, replicates=2000, batch=2400).result().mse
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
        mse = tally_of(truth + error, truth, sequence, 200, 180, reference=torch.zeros(1)).result().mse
        covered += mse.low <= 1.0 <= mse.high
    assert 0.86 <= covered / 150 <= 0.99


def test_skill_is_paired():
    prediction, truth, sequence = predictions(80, 5, 4)
    baseline = prediction + 0.5
    ours, theirs = (tally_of(p, truth, sequence, replicates=400) for p in (prediction, baseline))
    skill = ours.skill(theirs)
    assert skill.value == pytest.approx(1 - ((prediction - truth) ** 2).sum() / ((baseline - truth) ** 2).sum())
    assert skill.low < skill.value < skill.high
    same = ours.skill(tally_of(prediction, truth, sequence, replicates=400))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    # in every resample of sequences the errors of one predictor are 1.5 times those of the other
    proportional = ours.skill(tally_of(truth + 1.5 * (prediction - truth), truth, sequence, replicates=400))
    assert (proportional.value, proportional.low, proportional.high) == pytest.approx((5 / 9, 5 / 9, 5 / 9), abs=1e-12)
    with pytest.raises(StrataError, match="same rows"):
        ours.skill(tally_of(prediction[:100], truth[:100], sequence[:100], replicates=400))


def test_weights_are_poisson_and_belong_to_the_sequence():
    bootstrap = SequenceBootstrap(400, seed=3)
    weights = bootstrap.weights(torch.arange(500))
    assert weights.shape == (401, 500)
    assert weights[0].eq(1).all()
    assert weights[1:].mean().item() == pytest.approx(1, abs=0.01)
    assert weights[1:].var().item() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(weights[1:, 0], weights[1:, 1])[0, 1]) < 0.2
    alone = SequenceBootstrap(400, seed=3).weights(torch.tensor([77, 5]))
    assert torch.equal(alone, weights[:, [77, 5]])
    assert not torch.equal(SequenceBootstrap(400, seed=4).weights(torch.tensor([77, 5])), alone)


def test_half_precision_and_a_far_reference_are_summed_safely():
    prediction, truth, sequence = predictions(20, 9, 6)
    half = tuple(torch.from_numpy(a).to(torch.bfloat16) for a in (prediction - 500, truth - 500))
    tally = ResidualTally(torch.zeros(6), SequenceBootstrap(0, 0))
    tally.update(*half, torch.from_numpy(sequence))
    expected = r2_score(half[1].double(), half[0].double())
    assert tally.result().r2_uniform.value == pytest.approx(expected, abs=1e-9)
    far = tally_of(prediction, truth, sequence, reference=torch.zeros(6)).result()
    assert far.r2_uniform.value == pytest.approx(r2_score(truth, prediction), abs=1e-8)


def test_bad_input_is_refused():
    prediction, truth, sequence = (torch.from_numpy(a) for a in predictions(4, 3, 2))
    tally = ResidualTally(torch.zeros(2), SequenceBootstrap(5, 0))
    with pytest.raises(StrataError, match="split is empty"):
        tally.result()
    with pytest.raises(StrataError, match="do not fit 2 dimensions"):
        tally.update(prediction[:, :1], truth, sequence)
    with pytest.raises(StrataError, match="NaN or inf"):
        tally.update(prediction / 0, truth, sequence)
    assert tally.count[0] == 0
    with pytest.raises(StrataError, match="cannot be merged"):
        tally.merge(ResidualTally(torch.ones(2), SequenceBootstrap(5, 0)))
    with pytest.raises(StrataError, match="must not be negative"):
        SequenceBootstrap(-1, 0)
