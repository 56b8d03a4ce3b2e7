"""Paired losses with intervals over documents and trainings."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from src.modulators.comparison import by_group, compare_losses, mean_loss_of

N_TOKENS = torch.tensor([4.0, 9.0, 7.0, 12.0, 3.0, 8.0], dtype=torch.float64)


def sums(n_trainings, seed=0, n_documents=6):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(n_trainings, n_documents, generator=draws, dtype=torch.float64) + 2


def test_one_training_has_the_jackknife_of_a_ratio():
    found, of_documents = mean_loss_of(sums(1), N_TOKENS), sums(1)[0]
    left = [
        float((of_documents.sum() - of_documents[i]) / (N_TOKENS.sum() - N_TOKENS[i])) for i in range(len(N_TOKENS))
    ]
    assert found.value == pytest.approx(float(of_documents.sum() / N_TOKENS.sum()))
    error = (5 / 6 * sum((value - found.value) ** 2 for value in left)) ** 0.5
    degrees = float(N_TOKENS.sum() ** 2 / N_TOKENS.square().sum()) - 1
    assert 4 < degrees < 5
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, degrees) * error)
    assert found.of_documents == pytest.approx(error)
    assert found.of_trainings is None


@pytest.mark.parametrize("n_documents", [5, 24])
def test_intervals_hold_the_truth_with_few_documents_of_very_unequal_lengths(n_documents):
    """The linearised variance with Student's t of all documents holds it in 92 to 94 % of such draws."""
    draws = np.random.default_rng(5)
    n_trials, held = 2000, 0
    for _ in range(n_trials):
        n_tokens = torch.from_numpy(np.exp(draws.normal(3.5, 0.6, n_documents)).round())
        found = mean_loss_of(torch.from_numpy(draws.standard_normal((1, n_documents))) * n_tokens, n_tokens)
        held += found.low <= 0 <= found.high
    assert held / n_trials > 0.945


def test_documents_of_one_length_give_the_t_test_of_scipy():
    differences = sums(1)
    found = mean_loss_of(differences, torch.full((6,), 5.0))
    expected: Any = stats.ttest_1samp(differences[0].numpy() / 5, 0)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_trainings_that_differ_alone_give_the_t_test_over_trainings():
    shift = torch.tensor([[0.1], [0.5], [0.3]], dtype=torch.float64)
    found = mean_loss_of(shift * N_TOKENS, N_TOKENS)  # each document moves by the same
    expected: Any = stats.ttest_1samp([0.1, 0.5, 0.3], 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.of_trainings == pytest.approx(np.std([0.1, 0.5, 0.3], ddof=1) / 3**0.5)
    assert found.of_documents == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("of_document", "of_training"), [(1.0, 0.0), (0.2, 0.3), (1.0, 0.3)])
def test_intervals_hold_the_truth_as_often_as_they_say(of_document, of_training):
    draws = np.random.default_rng(3)
    held = 0
    n_trials, n_trainings, n_documents = 400, 3, 30
    for _ in range(n_trials):
        noise = of_document * draws.standard_normal(n_documents) + of_training * draws.standard_normal((n_trainings, 1))
        noise = noise + 0.2 * draws.standard_normal((n_trainings, n_documents))
        n_tokens = torch.from_numpy(draws.integers(5, 20, n_documents).astype(float))
        found = mean_loss_of(torch.from_numpy(0.7 + noise) * n_tokens, n_tokens)
        held += found.low <= 0.7 <= found.high
    assert held / n_trials > 0.95 - 3 * (0.95 * 0.05 / n_trials) ** 0.5
    if not of_training:
        assert held / n_trials < 0.985


def test_one_document_has_no_interval():
    found = mean_loss_of(torch.tensor([[3.0]]), torch.tensor([2.0]))
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_equal_runs_differ_by_nothing():
    found = mean_loss_of(torch.zeros(2, 6), N_TOKENS)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_examples_of_one_document_count_as_one():
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0], [10.0, 20.0, 40.0, 80.0]])
    assert torch.equal(by_group(values, torch.tensor([7, 3, 7, 3])), torch.tensor([[10.0, 5.0], [100.0, 50.0]]))


def test_differences_are_paired_by_document():
    """Documents differ by far more than runs: unpaired intervals would show nothing."""
    draws = torch.Generator().manual_seed(1)
    frozen = 30 * torch.rand(40, generator=draws, dtype=torch.float64) + 20
    n_tokens = torch.full((40,), 10.0, dtype=torch.float64)
    noise = 0.05 * torch.randn(3, 40, generator=draws, dtype=torch.float64)
    runs = {
        "modulator": (frozen - 0.5 + noise[0])[None],
        "zero": (frozen + noise[1])[None],
        "lora": (frozen - 0.5 + noise[2])[None],
    }
    found = compare_losses(frozen, runs, {"modulator": 10, "zero": 2, "lora": 12}, n_tokens)
    modulator, zero, lora = found.runs
    assert modulator.nll.high - modulator.nll.low > 0.5
    assert modulator.less_frozen.value == pytest.approx(-0.05, abs=0.003)
    assert zero.modulator_less is not None
    assert zero.modulator_less.high < -0.04
    assert lora.modulator_less is not None
    assert lora.modulator_less.low < 0 < lora.modulator_less.high
    assert modulator.modulator_less is None
    assert (found.n_documents, found.n_tokens, found.n_trainings) == (40, 400, 1)


def test_p_of_the_controls_are_adjusted_for_each_other():
    runs = {"modulator": sums(1, 1), "zero": sums(1, 2), "random": sums(1, 3)}
    found = compare_losses(sums(1)[0], runs, dict.fromkeys(runs, 1), N_TOKENS)
    plain = sorted(it.modulator_less.p for it in found.controls if it.modulator_less is not None)
    assert sorted(it.adjusted for it in found.controls if it.adjusted is not None) == pytest.approx(
        [min(1, 2 * plain[0]), min(1, max(2 * plain[0], plain[1]))]
    )
    assert found.modulator.adjusted is None
