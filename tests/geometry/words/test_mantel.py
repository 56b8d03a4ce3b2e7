"""Permutations of words against doing it pair by pair; p-values of planted and of absent structure."""

import numpy as np
import pytest
import torch
from scipy import stats

from src.geometry.lexicon.distances import path_distances
from src.geometry.lexicon.taxonomy import UNCONNECTED
from src.geometry.words import mantel as module
from src.geometry.words.correlations import correlate
from src.geometry.words.cosines import unit_rows
from src.geometry.words.mantel import CosineTest, MantelTests, mantel_tests
from tests.fixtures.random_taxonomy import random_taxonomy


def words(n: int, roots: float, signal: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    taxonomy = random_taxonomy(n, 11, roots=roots)
    rows = np.random.default_rng(12).normal(size=(n, 16))
    for sense in range(n):
        for parent in taxonomy.parents(sense):
            rows[sense] += signal * rows[parent]
    distances = path_distances(taxonomy, list(range(n)))
    return unit_rows(torch.from_numpy(rows), "centred", torch.device("cpu")), torch.from_numpy(distances)


def listed_correlation(cosine: np.ndarray, distances: np.ndarray) -> float:
    first, second = np.triu_indices(len(cosine), 1)
    kept = distances[first, second] != UNCONNECTED
    similar = 1 / (1 + distances[first, second].astype(float))
    return float(stats.pearsonr(cosine[first, second][kept], similar[kept]).statistic)


@pytest.mark.parametrize("roots", [0.0, 0.1])
def test_draws_are_correlations_with_words_at_each_others_places(roots, monkeypatch):
    units, distances = words(25, roots)
    monkeypatch.setattr(module, "_BLOCK_VALUES", 25 * 32 * 4)  # several blocks of rows
    monkeypatch.setattr(module, "_DRAWS_AT_ONCE", 5)
    found = mantel_tests([CosineTest(units)], distances, {d: 1 / (1 + d) for d in range(60)}, draws=12, seed=3)
    cosine = (units @ units.T).numpy()
    assert found.observed[0] == pytest.approx(listed_correlation(cosine, distances.numpy()), abs=1e-5)
    generator = torch.Generator().manual_seed(3)
    for draw in found.drawn[:, 0]:
        order = torch.randperm(25, generator=generator).numpy()
        assert draw == pytest.approx(listed_correlation(cosine, distances.numpy()[np.ix_(order, order)]), abs=1e-5)


def test_ranks_give_spearman():
    units, distances = words(30, 0.0)
    found = correlate(units, distances)
    ranked = mantel_tests([CosineTest(units, found.rank_of_bin)], distances, found.rank_of_distance, draws=3, seed=0)
    assert ranked.observed[0] == pytest.approx(found.spearman.value, abs=1e-5)


def test_structure_is_found_and_its_absence_too():
    planted, distances = words(80, 0.0, signal=1.5)
    nothing = unit_rows(torch.randn(80, 16, generator=torch.Generator().manual_seed(5)), "centred", torch.device("cpu"))
    scores = {d: 1 / (1 + d) for d in range(60)}
    found = mantel_tests([CosineTest(planted), CosineTest(nothing)], distances, scores, draws=199, seed=0)
    assert found.p[0] == found.adjusted[0] == 1 / 200
    assert found.p[1] > 0.05
    low, high = found.band()
    assert low[0] < 0 < high[0] < found.observed[0]
    assert low[1] < found.observed[1] < high[1]


def test_p_without_structure_is_uniform():
    _, distances = words(40, 0.0)
    draws = torch.Generator().manual_seed(8)
    many = [unit_rows(torch.randn(40, 10, generator=draws), "centred", torch.device("cpu")) for _ in range(120)]
    found = mantel_tests([CosineTest(each) for each in many], distances, {d: 1 / (1 + d) for d in range(60)}, 99, 1)
    assert stats.kstest(found.p, "uniform").pvalue > 0.01
    # the chance of any small corrected p among 120 is that of one
    assert found.adjusted.min() > 0.01
    assert (found.adjusted >= found.p).all()


def test_correction_takes_the_largest_deviation_of_each_draw():
    drawn = np.array([[0.0, 0.0], [1.0, -1.0], [-1.0, 3.0], [0.0, -2.0]])
    tests = MantelTests(np.array([1.0, 3.0]), drawn)
    assert tests.p.tolist() == [3 / 5, 2 / 5]
    # in standard deviations the draws' largest are 0, 1.41, 1.6 and 1.07; observed are 1.41 and 1.6
    assert tests.adjusted.tolist() == [3 / 5, 2 / 5]


def test_the_same_seed_draws_the_same():
    units, distances = words(20, 0.0)
    scores = {d: 1 / (1 + d) for d in range(60)}
    one, same, other = (mantel_tests([CosineTest(units)], distances, scores, 9, seed).drawn for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_cosines_that_are_all_alike_are_no_test_and_hide_no_other():
    planted, distances = words(60, 0.0, signal=1.5)
    alike = torch.full((60, 4), 0.5, dtype=torch.float64) + 1e-13 * planted[:, :4]
    scores = {d: 1 / (1 + d) for d in range(60)}
    both = mantel_tests([CosineTest(alike), CosineTest(planted)], distances, scores, draws=39, seed=0)
    alone = mantel_tests([CosineTest(planted)], distances, scores, draws=39, seed=0)
    assert np.isnan([both.observed[0], both.p[0], both.adjusted[0]]).all()
    assert (both.p[1], both.adjusted[1]) == (alone.p[0], alone.adjusted[0])


@pytest.mark.parametrize("roots", [0.0, 0.1])
def test_what_all_words_share_costs_no_digits(roots):
    """Raw cosines of anisotropic states are all near 1: their sums in float32 must not cancel."""
    units, distances = words(50, roots, signal=1.0)
    shared = torch.cat([torch.ones(50, 1, dtype=torch.float64) * 60, units], 1)
    raw = unit_rows(shared, "raw", torch.device("cpu"))
    found = mantel_tests([CosineTest(raw)], distances, {d: 1 / (1 + d) for d in range(60)}, draws=2, seed=0)
    assert found.observed[0] == pytest.approx(listed_correlation((raw @ raw.T).numpy(), distances.numpy()), abs=1e-4)
