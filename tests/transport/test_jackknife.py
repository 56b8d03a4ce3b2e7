import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_squared_error, r2_score

from src.errors import StrataError
from src.transport.jackknife import GroupJackknife, jackknife_estimate
from tests.fixtures.residual_streams import X, Y, moments_of, residual_stream


def test_the_interval_of_a_mean_is_student_s():
    values = np.random.default_rng(0).standard_normal(12) + 3
    without_each = [np.delete(values, i).mean() for i in range(12)]
    estimate = jackknife_estimate(torch.tensor([values.mean(), *without_each], dtype=torch.float64))
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((values.mean(), low, high), rel=1e-12)


def test_one_group_gives_no_interval():
    estimate = jackknife_estimate(torch.tensor([0.5, 0.5]))
    assert estimate.value == 0.5
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_scores_are_scikit_learn_s_on_the_rows_without_each_group():
    data = {point: rows for point, rows in residual_stream(600, 5).items() if point in (X, Y)}
    rng = np.random.default_rng(1)
    group = rng.choice(6, 600, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
    weight, bias = np.eye(5) + 0.1 * rng.standard_normal((5, 5)), rng.standard_normal(5)
    jackknife = GroupJackknife(moments_of(data, group), [2, 3, 5])
    score = jackknife.score_affine(X, Y, torch.from_numpy(weight), torch.from_numpy(bias))
    shifted = jackknife.score_identity(X, Y, shifted_by=torch.from_numpy(bias))
    for place, groups in enumerate([(2, 3, 5), (3, 5), (2, 5), (2, 3)]):
        rows = np.isin(group, groups)
        x, y = data[X][rows], data[Y][rows]
        for found, predicted in ((score, x @ weight + bias), (shifted, x + bias)):
            assert float(found.r2_uniform[place]) == pytest.approx(r2_score(y, predicted), abs=1e-8)
            weighted = r2_score(y, predicted, multioutput="variance_weighted")
            assert float(found.r2_variance_weighted[place]) == pytest.approx(weighted, abs=1e-8)
            assert float(found.mse[place]) == pytest.approx(mean_squared_error(y, predicted), rel=1e-8)


def test_intervals_cover_the_score_on_many_documents():
    """Groups of 20 documents with an effect of their own: about 95 % of the intervals hold the truth."""
    rng = np.random.default_rng(3)
    n_studies, n_groups, n_documents = 200, 10, 20
    covered = 0
    for _ in range(n_studies):
        hardness = rng.gamma(2, 0.5, (n_groups, n_documents, 1))
        y = rng.standard_normal((n_groups, n_documents, 10))
        error = 0.5 * np.sqrt(hardness) * rng.standard_normal(y.shape)

        def r2(chosen, y=y, error=error):
            return 1 - (error[chosen] ** 2).sum() / ((y[chosen] - y[chosen].mean()) ** 2).sum()

        everything = np.ones(n_groups, bool)
        replicates = [r2(everything), *(r2(np.arange(n_groups) != g) for g in range(n_groups))]
        estimate = jackknife_estimate(torch.tensor(replicates, dtype=torch.float64))
        covered += estimate.low <= 0.75 <= estimate.high
    assert 0.9 <= covered / n_studies <= 0.985


def test_a_group_without_rows_is_refused():
    data = {point: rows for point, rows in residual_stream(60, 5).items() if point in (X, Y)}
    with pytest.raises(StrataError, match=r"groups \[3\] hold no rows"):
        GroupJackknife(moments_of(data, np.arange(60) % 3, n_groups=4), [1, 3])
