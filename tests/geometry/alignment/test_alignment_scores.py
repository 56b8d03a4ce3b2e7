"""Scores, retrieval, relations and ordered sets against brute force and planted truth."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from src.geometry.alignment.ordered import ordered_agreement
from src.geometry.alignment.relations import relations
from src.geometry.alignment.retrieval import retrieval
from src.geometry.alignment.scores import UnitBootstrap, residual_spectrum, score_tokens, summary


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_shared_mean_earns_no_cosine():
    centre = torch.full((6,), 10.0, dtype=torch.float64)
    scores = score_tokens(randn(500, 6), randn(500, 6, seed=1), centre)
    assert abs(scores.cosine.mean()) < 0.06
    assert scores.raw_cosine.mean() > 0.95


def test_token_scores_are_what_their_names_say():
    predicted, true = randn(20, 5), randn(20, 5, seed=1)
    scores = score_tokens(predicted, true, torch.zeros(5, dtype=torch.float64))
    a, b = predicted.numpy(), true.numpy()
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(scores.cosine, (a @ b.T).diagonal() / lengths)
    np.testing.assert_allclose(scores.distance, np.linalg.norm(a - b, axis=1))
    assert scores.explained == pytest.approx(1 - ((a - b) ** 2).sum() / (b**2).sum())
    assert summary(scores.cosine)["p50"] == pytest.approx(np.median(scores.cosine))
    nothing = score_tokens(torch.zeros_like(true), true, torch.zeros(5, dtype=torch.float64))
    assert (nothing.cosine == 0).all()
    assert nothing.explained == 0


def test_the_residual_spectrum_sums_to_what_is_not_explained():
    true = randn(60, 7)
    predicted = 0.8 * true + 0.1 * randn(60, 7, seed=1)
    left, own = residual_spectrum(predicted, true)
    scores = score_tokens(predicted, true, torch.zeros(7, dtype=torch.float64))
    assert left.sum() == pytest.approx(1 - scores.explained)
    assert own.sum() == pytest.approx(1)
    assert (np.diff(left) <= 0).all()


def test_intervals_widen_when_tokens_of_a_document_go_together():
    values = np.repeat(np.random.default_rng(0).normal(size=40), 25)
    tokens = UnitBootstrap(np.arange(1000), 400, 0).mean(values)
    documents = UnitBootstrap(np.repeat(np.arange(40), 25), 400, 0).mean(values)
    assert tokens.value == pytest.approx(values.mean())
    assert documents.value == pytest.approx(values.mean())
    expected = 2 * 1.96 * values.std() / np.sqrt(40)
    assert documents.high - documents.low == pytest.approx(expected, rel=0.15)
    assert tokens.high - tokens.low == pytest.approx(expected / 5, rel=0.15)


def naive_ranks(mapped: np.ndarray, target: np.ndarray, csls: bool) -> np.ndarray:
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (mapped, target))
    scores = x @ y.T
    if csls:
        near_x = np.sort(scores, axis=1)[:, -10:].mean(1)
        near_y = np.sort(scores, axis=0)[-10:].mean(0)
        scores = 2 * scores - near_x[:, None] - near_y
    return (scores > scores.diagonal()[:, None]).sum(1)


def test_retrieval_is_brute_forces():
    target = randn(120, 6)
    mapped = target + 0.7 * randn(120, 6, seed=1)
    queries = np.arange(10, 90)
    found = retrieval(mapped, target, queries)
    for prefix, csls in (("", False), ("csls_", True)):
        ranks = naive_ranks(mapped.numpy(), target.numpy(), csls)[queries]
        for k in (1, 10):
            np.testing.assert_array_equal(found[f"{prefix}p_at_{k}"], ranks < k)


def test_csls_is_fair_to_hubs():
    # one target row lies in the direction that all predictions share
    draws = np.random.default_rng(0)
    truth = draws.normal(size=(60, 30))
    common = np.full((1, 30), 1.0)
    mapped, target = truth + 1.2 * common, np.concatenate([truth[:-1] + 0.4 * common, 3 * common])
    found = retrieval(torch.from_numpy(mapped), torch.from_numpy(target), np.arange(59))
    assert found["csls_p_at_1"].mean() >= found["p_at_1"].mean()


def test_equal_rows_share_a_hit():
    target = torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2]]
    found = retrieval(target, target, np.arange(4), ranks=(1,))
    np.testing.assert_allclose(found["p_at_1"], [0.5, 0.5, 1, 1])


def test_relations_over_all_pairs_are_brute_forces():
    x, y = randn(40, 9) + 0.5, randn(40, 5, seed=1)
    x[:, :5] += y
    found = relations(x, y, np.arange(40), shuffles=19, seed=0)
    u, v = (rows / rows.norm(dim=1, keepdim=True) for rows in (x, y))
    upper = np.triu_indices(40, 1)
    first, second = ((side @ side.T).numpy()[upper] for side in (u, v))
    assert found.pearson.value == pytest.approx(pearsonr(first, second)[0], abs=1e-12)
    assert found.mean_difference == pytest.approx(np.abs(first - second).mean())
    assert found.rms_difference == pytest.approx(np.sqrt(np.square(first - second).mean()))
    a, b = (rows - rows.mean(0) for rows in (x, y))
    kernels = [(side @ side.T).numpy() for side in (a, b)]
    plain = (kernels[0] * kernels[1]).sum() / np.sqrt(np.square(kernels[0]).sum() * np.square(kernels[1]).sum())
    assert found.cka.value == pytest.approx(plain)
    hsic = [[unbiased_hsic(k, other) for other in kernels] for k in kernels]
    assert found.debiased_cka.value == pytest.approx(hsic[0][1] / np.sqrt(hsic[0][0] * hsic[1][1]))
    assert found.pearson.p == 1 / 20
    assert found.pearson.low < found.pearson.value < found.pearson.high


def unbiased_hsic(first: np.ndarray, second: np.ndarray) -> float:
    # Song et al. (2012), eq. 5, with whole kernels
    n = len(first)
    k, ell = (kernel - np.diag(kernel.diagonal()) for kernel in (first, second))
    inner = (k * ell).sum() + k.sum() * ell.sum() / ((n - 1) * (n - 2)) - 2 * (k @ ell).sum() / (n - 2)
    return inner / (n * (n - 3))


def test_rotations_change_no_relation_and_unrelated_spaces_have_none():
    x, y = randn(80, 12), randn(80, 12, seed=1)
    turn = torch.linalg.qr(randn(12, 12, seed=2))[0]
    same = relations(x @ turn, x, np.arange(80), 9, 0)
    assert same.pearson.value == pytest.approx(1, abs=1e-10)
    assert same.debiased_cka.value == pytest.approx(1, abs=1e-10)
    other = relations(x, y, np.arange(80), 99, 0)
    assert abs(other.debiased_cka.value) < 0.1 < other.cka.value
    assert other.pearson.p > 0.01


def test_the_jackknife_covers_what_other_draws_give():
    draws = [relations(*noisy_pair(seed), np.arange(200), 1, 0).pearson for seed in range(12)]
    spread = np.std([each.value for each in draws])
    told = np.mean([(each.high - each.low) / (2 * 1.96) for each in draws])
    assert 0.5 < told / spread < 2


def noisy_pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = randn(200, 6, seed=seed)
    return x, x + randn(200, 6, seed=seed + 100)


STEPS = np.abs(np.arange(8)[:, None] - np.arange(8))
AROUND = np.minimum(STEPS, 8 - STEPS)


def agreement(predicted: torch.Tensor, true: torch.Tensor, steps: np.ndarray = AROUND):
    words = [str(word) for word in range(8)]
    return ordered_agreement("circle", words, True, steps, true, predicted, true, permutations=999, seed=0)


def circle() -> torch.Tensor:
    angle = torch.arange(8, dtype=torch.float64) * 2 * np.pi / 8
    return torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, 1.0)], 1)


def test_words_at_home():
    found = agreement(circle() + 0.01 * randn(8, 3), circle())
    assert found.at_home == 8
    assert found.at_home_p == found.cosine_p == 1 / 1000
    assert found.structure > 0.99
    assert found.steps_predicted == pytest.approx(found.steps_true, abs=0.02)
    assert found.steps_p < 0.01
    assert found.within.diagonal().min() > 0.95


def test_what_a_set_has_in_common_is_no_evidence():
    # all predictions near the set's centre: cosines are high, and nothing is at its place
    common = torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64)
    found = agreement(common + 0.1 * randn(8, 3), common + circle())
    assert found.cosine > 0.9
    assert found.cosine_p > 0.02
    assert found.at_home <= 4


def test_a_turned_circle_keeps_its_order_but_nobody_is_at_home():
    found = agreement(circle().roll(3, 0), circle())
    assert found.at_home == 0
    assert found.structure == pytest.approx(1)
    assert found.structure_p < 0.01
    assert found.cosine_p > 0.5
    broken = agreement(circle()[[0, 4, 1, 5, 2, 6, 3, 7]], circle())
    assert broken.structure_p > 0.05
    assert broken.steps_p > 0.05
