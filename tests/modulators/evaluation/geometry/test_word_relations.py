"""Correlations of words' cosines with their relations, against lists of pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from src.geometry.lexicon.distances import path_distances
from src.geometry.words import pair_sums
from src.geometry.words.cosines import unit_rows
from src.modulators.evaluation.geometry.relations import (
    BANDS,
    correlation_with_scores,
    kinship,
    word_relations,
)
from tests.fixtures.random_taxonomy import made_taxonomy, random_taxonomy

CPU = torch.device("cpu")


def units_of(rows: np.ndarray) -> torch.Tensor:
    return unit_rows(torch.from_numpy(rows), "centred", CPU)


def planted(n: int, seed: int, signal: float, d: int = 24) -> np.ndarray:
    """Rows that hold so much of their parents' rows; the taxonomy is random_taxonomy(n, seed)."""
    taxonomy = random_taxonomy(n, seed)
    rows = np.random.default_rng([seed, 1]).normal(size=(n, d))
    for sense in range(n):
        for parent in taxonomy.parents(sense):
            rows[sense] += signal * rows[parent]
    return rows


@given(st.integers(4, 30), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_correlation_with_scores_is_that_of_the_listed_pairs_and_leaves_out_each_word(n, seed):
    draws = np.random.default_rng(seed)
    rows, scores = draws.normal(size=(n, 5)), draws.normal(size=(n, n)) + 50.0
    scores = (scores + scores.T) / 2
    scores[draws.random((n, n)) < 0.1] = np.nan
    scores += 0 * scores.T  # NaN on both sides
    units = units_of(rows)
    cosine = (units @ units.T).numpy()

    def by_hand(words: np.ndarray) -> float:
        first, second = (words[side] for side in np.triu_indices(len(words), 1))
        known = np.isfinite(scores[first, second])
        if known.sum() < 3:
            return np.nan
        return float(stats.pearsonr(cosine[first, second][known], scores[first, second][known]).statistic)

    found = correlation_with_scores(units, torch.from_numpy(scores))
    left = np.array([by_hand(np.delete(np.arange(n), word)) for word in range(n)])
    if not (np.isfinite(left).all() and np.isfinite(found.error)):
        return
    assert found.value == pytest.approx(by_hand(np.arange(n)), abs=1e-8)
    assert found.left == pytest.approx(left, abs=1e-6)
    assert found.error == pytest.approx(np.sqrt((n - 1) / n * np.square(left - left.mean()).sum()), abs=1e-6)


def test_correlation_with_scores_does_not_depend_on_blocks(monkeypatch):
    units = units_of(np.random.default_rng(0).normal(size=(40, 6)))
    scores = torch.from_numpy(kinship(random_taxonomy(40, 1), list(range(40))).wu_palmer)
    whole = correlation_with_scores(units, scores)
    monkeypatch.setattr(pair_sums, "_BLOCK_PAIRS", 7 * 40)
    assert correlation_with_scores(units, scores).value == pytest.approx(whole.value, abs=1e-12)


def test_cosines_or_scores_that_are_all_alike_have_no_correlation():
    scores = torch.rand(6, 6, dtype=torch.float64)
    same = torch.ones(6, 3, dtype=torch.float64) / 3**0.5
    assert np.isnan(correlation_with_scores(same, scores + scores.T).value)
    units = units_of(np.random.default_rng(1).normal(size=(6, 3)))
    assert np.isnan(correlation_with_scores(units, torch.full((6, 6), 0.5)).value)


def test_wu_palmer_of_a_small_tree_and_of_words_that_nothing_connects():
    """thing > animal > (dog, cat); thing > tool; a root of its own."""
    taxonomy = made_taxonomy([[], [0], [1], [1], [0], []])
    related = kinship(taxonomy, [2, 3, 4, 5])
    # dog and cat meet in animal (D = 2, one step each); dog and tool in thing (D = 1, 2 and 1 steps)
    assert related.wu_palmer[0, 1] == pytest.approx(2 * 2 / (1 + 1 + 2 * 2))
    assert related.wu_palmer[0, 2] == pytest.approx(2 / (2 + 1 + 2))
    assert np.array_equal(related.wu_palmer, related.wu_palmer.T, equal_nan=True)
    assert np.isnan(related.wu_palmer[:3, 3]).all()
    assert related.distances[0, 1] == 2


def test_every_pair_is_in_one_band():
    """BUG D-4: synonyms (similarity 1) fell out of all bands, and distance 19 (0.05) was in two."""
    chain = made_taxonomy([[], *([i] for i in range(60))])
    senses = [0, 0, 1, 2, 3, 4, 9, 10, 19, 20, 21, 60]
    related = kinship(chain, senses)
    units = units_of(np.random.default_rng(2).normal(size=(len(senses), 8)))
    found = word_relations(units, related, 19, 0)
    n = len(senses)
    assert sum(band.n_pairs for band in found.bands.values()) == n * (n - 1) // 2
    cosine, first, second = (units @ units.T).numpy(), *np.triu_indices(n, 1)
    similarity = 1 / (1 + related.distances.astype(float))[first, second]
    # as the spec has them, written as similarities
    edges = {"0.5 to 1": (0.5, 2), "0.25 to 0.5": (0.25, 0.5), "0.1 to 0.25": (0.1, 0.25), "0.05 to 0.1": (0.05, 0.1)}
    edges["below 0.05"] = (0, 0.05)
    assert set(edges) == set(BANDS)
    for name, (low, high) in edges.items():
        here = (similarity >= low) & (similarity < high)
        assert found.bands[name].n_pairs == here.sum()
        assert found.bands[name].mean.value == pytest.approx(cosine[first, second][here].mean(), abs=1e-9)


def test_bands_without_pairs_are_left_out_and_words_without_kinds_have_no_decay():
    taxonomy = made_taxonomy([[], *([0] for _ in range(10))])
    found = word_relations(
        units_of(np.random.default_rng(3).normal(size=(10, 4))), kinship(taxonomy, range(1, 11)), 19, 0
    )
    assert list(found.bands) == ["0.25 to 0.5"]
    assert found.decay is None


def test_rows_that_hold_their_parents_follow_the_taxonomy_and_random_ones_do_not():
    taxonomy = random_taxonomy(60, 5)
    related = kinship(taxonomy, list(range(60)))
    assert np.array_equal(related.distances, path_distances(taxonomy, list(range(60))))
    with_signal = word_relations(units_of(planted(60, 5, 1.0)), related, 19, 0)
    without = word_relations(units_of(planted(60, 5, 0.0)), related, 19, 0)
    for estimate in (with_signal.path.pearson, with_signal.wu_palmer, with_signal.path.spearman):
        assert estimate.low > 0.1
    assert abs(without.path.pearson.value) < 0.1
    assert abs(without.wu_palmer.value) < 0.1
    nearest = next(iter(with_signal.bands.values())).mean
    assert nearest.low > with_signal.bands["0.1 to 0.25"].mean.high
