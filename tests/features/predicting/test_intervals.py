"""Intervals over documents: the jackknife's error is the true one, and they cover the truth as often as they say."""

import numpy as np
import pytest
import torch

from src.features.predicting.intervals import (
    N_GROUPS,
    Interval,
    jackknife_interval,
    leave_one_out,
    median_interval,
)
from src.features.predicting.metrics import PredictedProjections, TrueProjections, error_metrics

HAVE_ALL = torch.ones(N_GROUPS, 1, dtype=torch.bool)


def grouped(values: np.ndarray) -> torch.Tensor:
    """Sums over documents by group, [statistic, group, 1], of values [statistic, document]."""
    sums = np.zeros((len(values), N_GROUPS, 1))
    for statistic, of_documents in enumerate(values):
        np.add.at(sums[statistic, :, 0], np.arange(len(of_documents)) % N_GROUPS, of_documents)
    return torch.from_numpy(sums)


def test_leaving_out_adds_up_the_others():
    sums = torch.from_numpy(np.random.default_rng(0).standard_normal((3, N_GROUPS, 2)))
    sums[0, 5] = 1e20
    left = leave_one_out(sums)
    torch.testing.assert_close(left[:, 0], sums.sum(1))
    for group in (0, 5, N_GROUPS - 1):
        others = torch.cat([sums[:, :group], sums[:, group + 1 :]], 1).sum(1)
        torch.testing.assert_close(left[:, 1 + group], others, rtol=1e-12, atol=1e-12)


def covers(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([float(it.low[0]) <= truth <= float(it.high[0]) for it in intervals]))


def test_r2_of_documents_whose_tokens_are_alike_is_covered_as_often_as_the_interval_says():
    """120 documents of 4 to 12 tokens that share most of their signal and of their error: R2 is 0.8."""
    rng = np.random.default_rng(0)
    intervals, blind = [], []
    for _ in range(300):
        sizes = rng.integers(4, 13, 120)
        document = np.repeat(np.arange(120), sizes)
        a = 0.9 * rng.standard_normal(120)[document] + np.sqrt(0.19) * rng.standard_normal(len(document))
        e = np.sqrt(0.2) * (
            0.9 * rng.standard_normal(120)[document] + np.sqrt(0.19) * rng.standard_normal(len(document))
        )
        statistics = (np.ones(len(a)), a, a**2, np.abs(a), a + e, (a + e) ** 2, e**2)
        by_document = np.stack([np.bincount(document, each) for each in statistics])
        n, total, square, size, predicted, predicted_square, sse = leave_one_out(grouped(by_document))
        truth = TrueProjections(n, total, square, size, torch.zeros(1))
        r2 = error_metrics(truth, PredictedProjections(predicted, predicted_square, sse))["r2_lat"]
        intervals.append(jackknife_interval(r2, HAVE_ALL, "log_rest"))
        tokens = np.log((a**2).mean() / (e**2).mean()), np.sqrt((np.var(a**2) + np.var(e**2) / 0.04) / len(a))
        blind.append(abs(tokens[0] - np.log(5)) < 1.96 * tokens[1])
    assert 0.91 <= covers(intervals, 0.8) <= 0.98
    assert np.mean(blind) < 0.75  # were tokens independent, the interval would be much too narrow


def test_a_share_of_clustered_counts_is_covered_near_its_end_too():
    """Recall of 0.97: in every tenth document most tokens are missed."""
    rng = np.random.default_rng(1)
    intervals = []
    for _ in range(400):
        chance = np.where(rng.random(200) < 0.1, 0.75, 0.995)
        fires = rng.integers(1, 8, 200)
        both = rng.binomial(fires, chance)
        found, total = leave_one_out(grouped(np.stack([both, fires]).astype(float)))
        intervals.append(jackknife_interval(found / total, HAVE_ALL, "share"))
    truth = 0.9 * 0.995 + 0.1 * 0.75
    assert 0.91 <= covers(intervals, truth) <= 0.99
    assert all(float(it.high[0]) <= 1 for it in intervals)


def test_too_few_groups_with_data_give_no_interval_and_a_share_of_one_still_has_a_width():
    replicates = torch.ones(1 + N_GROUPS, 2, dtype=torch.float64)
    has_data = torch.zeros(N_GROUPS, 2, dtype=torch.bool)
    has_data[:4, 0], has_data[:20, 1] = True, True
    interval = jackknife_interval(replicates, has_data, "share")
    assert interval.low.isnan().tolist() == [True, False]
    assert float(interval.high[1]) == 1
    assert 0.75 < float(interval.low[1]) < 0.9  # Wilson's of 20 out of 20 is 0.84


@pytest.mark.parametrize("scale", ["plain", "log", "log_rest", "fisher", "share"])
def test_an_interval_holds_its_value_and_stays_where_the_metric_can_be(scale):
    rng = np.random.default_rng(2)
    values = torch.from_numpy(0.9 + 0.003 * rng.standard_normal((1 + N_GROUPS, 1)))
    interval = jackknife_interval(values, HAVE_ALL, scale)
    assert float(interval.low[0]) < float(values[0, 0]) < float(interval.high[0])
    assert float(interval.high[0]) < (1.2 if scale in ("plain", "log") else 1)


def test_the_median_of_an_even_number_of_features_lies_between_the_middle_ones():
    replicates = torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=torch.float64).expand(41, 4)
    assert median_interval(replicates) == pytest.approx((0.4, 0.4, 0.4))


def test_the_median_over_features_has_an_interval_over_documents():
    rng = np.random.default_rng(3)
    truth, covered = np.linspace(0.1, 0.9, 9), 0
    for _ in range(300):
        documents = truth[:, None] + 0.4 * rng.standard_normal(160) + 0.1 * rng.standard_normal((9, 160))
        means = leave_one_out(grouped(documents)[..., 0].T[None])[0] / np.r_[160, np.full(N_GROUPS, 156)][:, None]
        middle, low, high = median_interval(means)
        covered += low <= 0.5 <= high
        assert low < middle < high
    assert 0.91 <= covered / 300 <= 0.98
    assert np.isnan(median_interval(torch.full((5, 2), float("nan")))).all()
