"""Exact means over all pairs, norms and distances, against brute force."""

import itertools

import numpy as np
import pytest
import torch

from src.geometry.embedding import rows as rows_module
from src.geometry.embedding.distances import summarise_distances
from src.geometry.embedding.moments import table_moments
from src.geometry.embedding.norms import summarise_columns, summarise_norms
from src.geometry.embedding.rows import Rows

CPU = torch.device("cpu")


def table(n=500, d=24, seed=0, dtype=torch.float32):
    """Rows about a mean that is not 0, with norms that differ."""
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=draws, dtype=torch.float64) * torch.linspace(2, 0.2, d) + 0.7
    return (rows * torch.exp(0.3 * torch.randn(n, 1, generator=draws, dtype=torch.float64))).to(dtype)


def every(rows):
    return Rows(rows, np.arange(len(rows)), CPU)


def cosines_of(rows):
    unit = rows.double().numpy() / np.linalg.norm(rows.double().numpy(), axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(rows), 1)]


def test_cosine_mean_and_std_are_those_of_all_pairs():
    rows = table()
    found, truth = table_moments(every(rows)), cosines_of(rows)
    assert found.cosine.mean == pytest.approx(truth.mean(), abs=1e-10)
    assert found.cosine.std == pytest.approx(truth.std(), abs=1e-10)
    centred = rows.double() - rows.double().mean(0)
    assert found.centred_cosine_mean == pytest.approx(cosines_of(centred).mean(), abs=1e-10)


def test_rows_of_zeros_have_no_cosine():
    rows = table(60)
    with_zeros = torch.cat([rows, torch.zeros(3, rows.shape[1])])
    assert table_moments(every(with_zeros)).cosine == table_moments(every(rows)).cosine


def test_mean_and_covariance_are_right_with_a_common_offset():
    rows = table(dtype=torch.float64) + 1e4
    found = table_moments(every(rows))
    torch.testing.assert_close(found.mean, rows.mean(0))
    truth = torch.from_numpy(np.cov((rows - 1e4).numpy().T, bias=True))
    torch.testing.assert_close(found.covariance, truth, rtol=1e-7, atol=1e-7)


def test_blocks_of_rows_change_nothing(monkeypatch):
    rows = table(dtype=torch.bfloat16)
    chosen = Rows(rows, np.arange(3, 480, 2), CPU)
    whole = table_moments(chosen)
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 8 * 24 * 31)
    parts = table_moments(chosen)
    assert len(list(chosen.blocks())) == 8
    assert parts.cosine.mean == pytest.approx(whole.cosine.mean, abs=1e-13)
    torch.testing.assert_close(parts.covariance, whole.covariance)
    torch.testing.assert_close(parts.norms, rows[3:480:2].double().norm(dim=1))


def test_only_chosen_rows_count():
    rows = table()
    damaged = rows.clone()
    damaged[400:] = 1e6
    some = np.arange(400)
    assert table_moments(Rows(damaged, some, CPU)).cosine == table_moments(Rows(rows, some, CPU)).cosine


def test_mean_squared_distance_is_that_of_all_pairs():
    rows = table(200)
    pairs = torch.nn.functional.pdist(rows.double())
    assert table_moments(every(rows)).mean_squared_distance == pytest.approx(float(pairs.square().mean()), rel=1e-12)


def test_norms_and_columns():
    rows = table(300)
    moments = table_moments(every(rows))
    found, norms = summarise_norms(moments.norms), rows.double().norm(dim=1).numpy()
    assert found.mean == pytest.approx(norms.mean())
    assert found.cv == pytest.approx(norms.std() / norms.mean())
    assert found.log_std == pytest.approx(np.log(norms).std())
    assert (found.lowest, found.highest) == (norms.argmin(), norms.argmax())
    assert found.percentiles == pytest.approx({p: np.percentile(norms, p) for p in (1, 5, 25, 50, 75, 95, 99)})
    columns = summarise_columns(moments.mean, moments.covariance)
    values = rows.double().numpy()
    assert columns.mean_of_means == pytest.approx(values.mean(0).mean())
    assert columns.std_of_stds == pytest.approx(values.std(0).std())


def test_norms_near_zero_are_counted_and_have_no_logarithm():
    found = summarise_norms(torch.tensor([0.0, 1e-7, 1.0, np.e], dtype=torch.float64))
    assert found.n_near_zero == 2
    assert found.log_std == pytest.approx(0.5)


def test_distances_are_those_of_all_pairs():
    rows = table(150, dtype=torch.float64) + 1e3
    found, truth = summarise_distances(rows, is_sample=False), torch.nn.functional.pdist(rows).numpy()
    assert found.mean == pytest.approx(truth.mean(), rel=1e-9)
    assert found.cv == pytest.approx(truth.std() / truth.mean(), rel=1e-7)
    assert (found.minimum, found.maximum) == pytest.approx((truth.min(), truth.max()), rel=1e-8)
    assert (found.mean_error, found.std_error) == (0, 0)


def test_errors_of_distances_leave_out_a_row_at_a_time():
    rows = table(40, dtype=torch.float64)
    found = summarise_distances(rows, is_sample=True)
    left = []
    for row in range(40):
        pairs = torch.nn.functional.pdist(rows[[other for other in range(40) if other != row]]).numpy()
        left.append((pairs.mean(), pairs.std(), pairs.std() / pairs.mean()))
    truth = np.sqrt(39 / 40 * np.square(np.array(left) - np.mean(left, 0)).sum(0))
    np.testing.assert_allclose([found.mean_error, found.std_error, found.cv_error], truth, rtol=1e-8)


def test_copies_have_distance_zero():
    rows = table(30, dtype=torch.float64)
    found = summarise_distances(torch.cat([rows, rows[:1]]), is_sample=False)
    assert found.minimum == pytest.approx(0, abs=1e-6)


def test_one_row_has_no_pairs():
    moments = table_moments(every(table(1)))
    assert all(np.isnan(value) for value in (moments.cosine.mean, moments.cosine.std, moments.mean_squared_distance))
    with pytest.raises(ValueError, match="1 rows"):
        summarise_distances(table(1).double(), is_sample=False)
    assert len(list(itertools.islice(every(table(1)).blocks(), 2))) == 1
