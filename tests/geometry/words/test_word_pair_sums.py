"""Sums over all pairs against brute force over a list of pairs, and their errors against leaving words out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from src.errors import StrataError
from src.geometry.lexicon.distances import path_distances
from src.geometry.lexicon.taxonomy import UNCONNECTED
from src.geometry.words import pair_sums as module
from src.geometry.words.correlations import correlate
from src.geometry.words.cosines import unit_rows
from src.geometry.words.pair_sums import correlation_with, jackknife, mean_gradient, midranks, pair_sums
from tests.fixtures.random_taxonomy import made_taxonomy, random_taxonomy

CPU = torch.device("cpu")


def random_words(n: int, seed: int, signal: float = 0.0, d: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows and distances in a random taxonomy; signal: how much rows hold of their ancestors' directions."""
    taxonomy = random_taxonomy(n, seed)
    rows = np.random.default_rng([seed, 1]).normal(size=(n, d))
    for sense in range(n):
        for parent in taxonomy.parents(sense):
            rows[sense] += signal * rows[parent]
    distances = path_distances(taxonomy, list(range(n)))
    return unit_rows(torch.from_numpy(rows), "centred", CPU), torch.from_numpy(distances)


def listed(units: torch.Tensor, distances: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and distances of all connected pairs."""
    first, second = np.triu_indices(len(units), 1)
    cosine = (units[first] * units[second]).sum(-1).numpy()
    distance = distances.numpy()[first, second]
    connected = distance != UNCONNECTED
    return cosine[connected], distance[connected].astype(float)


@given(st.integers(3, 40), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_correlations_over_all_pairs_are_those_of_the_listed_pairs(n, seed):
    units, distances = random_words(n, seed)
    cosine, distance = listed(units, distances)
    if len(set(distance.tolist())) < 2:
        return
    found = correlate(units, distances)
    assert found.n_pairs == len(cosine)
    assert found.coverage == pytest.approx(len(cosine) / (n * (n - 1) / 2))
    assert found.pearson.value == pytest.approx(stats.pearsonr(cosine, 1 / (1 + distance)).statistic, abs=1e-9)
    assert found.pearson_distance.value == pytest.approx(stats.pearsonr(cosine, distance).statistic, abs=1e-9)
    # cosines of one bin of 65,536 share their ranks
    assert found.spearman.value == pytest.approx(stats.spearmanr(cosine, 1 / (1 + distance)).statistic, abs=2e-3)


def test_rows_in_blocks_give_the_same_sums(monkeypatch):
    units, distances = random_words(50, 3)
    whole = pair_sums(units, distances)
    monkeypatch.setattr(module, "_BLOCK_PAIRS", 7 * 50)
    blocks = pair_sums(units, distances)
    assert np.array_equal(whole.histogram, blocks.histogram)
    assert np.allclose(whole.total, blocks.total, atol=1e-12)
    assert np.array_equal(whole.count, blocks.count)


def test_each_distance_has_one_row_of_all_its_pairs():
    units, distances = random_words(60, 4)
    cosine, distance = listed(units, distances)
    rows = correlate(units, distances).by_distance
    assert rows.distances.tolist() == sorted(set(distance.tolist()))
    for place, value in enumerate(rows.distances):
        here = cosine[distance == value]
        assert rows.n_pairs[place] == len(here)
        assert rows.mean[place].value == pytest.approx(here.mean(), abs=1e-9)
        assert rows.sd[place] == pytest.approx(here.std(), abs=1e-7)
        if len(here) >= 100:
            assert rows.percentiles[place] == pytest.approx(
                np.percentile(here, [1, 5, 25, 50, 75, 95, 99], method="inverted_cdf"), abs=1e-4
            )
    assert rows.n_pairs.sum() == len(cosine)


def test_synonyms_have_a_row_and_distance_19_is_counted_once():
    """BUG D-4: similarity 1 fell out of every band, and 1/20 into two."""
    chain = made_taxonomy([[], *([i] for i in range(20))])
    senses = [0, 0, 19, 20, 20]
    distances = torch.from_numpy(path_distances(chain, senses))
    units = unit_rows(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), "raw", CPU)
    rows = correlate(units, distances).by_distance
    counts = dict(zip(rows.distances.tolist(), rows.n_pairs.tolist(), strict=True))
    assert counts == {0: 2, 1: 2, 19: 2, 20: 4}


def test_pairs_that_share_a_sense_can_be_left_out():
    """BUG D-2: words of one synset have the same definition, and would be perfect pairs."""
    units, distances = random_words(40, 5)
    units[1], distances[1], distances[:, 1] = units[0], distances[0], distances[:, 0].clone()
    distances[0, 1] = distances[1, 0] = distances[1, 1] = 0
    cosine, distance = listed(units, distances)
    found = correlate(units, distances, lowest=1)
    kept = distance > 0
    assert found.n_pairs == kept.sum() == len(cosine) - 1
    assert found.pearson.value == pytest.approx(
        stats.pearsonr(cosine[kept], 1 / (1 + distance[kept])).statistic, abs=1e-9
    )
    assert 0 in found.by_distance.distances


def test_jackknife_leaves_every_word_out():
    units, distances = random_words(30, 6, signal=1.0)
    found = correlate(units, distances)
    left = []
    for word in range(30):
        others = [each for each in range(30) if each != word]
        cosine, distance = listed(units[others], distances[others][:, others])
        left.append(stats.pearsonr(cosine, 1 / (1 + distance)).statistic)
    expected = np.sqrt(29 / 30 * np.square(np.array(left) - np.mean(left)).sum())
    assert found.pearson.error == pytest.approx(expected, rel=1e-9)


def test_jackknife_error_agrees_with_a_bootstrap_over_1000_words():
    """Spec K: within 15 % of 200 replicates, words drawn with replacement and pairs of a word with itself left out."""
    units, distances = random_words(1000, 7, signal=1.0, d=64)
    sums = pair_sums(units, distances)
    estimate = jackknife(sums, correlation_with(1 / (1 + sums.distances)))
    cosine = (units @ units.T).float().fill_diagonal_(0)
    similar = 1 / (1 + distances.float())
    mask = (distances != UNCONNECTED).float().fill_diagonal_(0)
    terms = [mask, mask * cosine, mask * cosine**2, mask * similar, mask * similar**2, mask * cosine * similar]
    draws = torch.Generator().manual_seed(0)
    weights = torch.stack(
        [torch.randint(0, 1000, (1000,), generator=draws).bincount(minlength=1000) for _ in range(200)]
    )
    n, x, xx, y, yy, xy = (((weights.float() @ term) * weights).sum(1).double() for term in terms)
    replicates = (xy / n - x / n * y / n) / ((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)).sqrt()
    assert estimate.value == pytest.approx(float(replicates.mean()), abs=3 * estimate.error)
    assert estimate.error == pytest.approx(float(replicates.std()), rel=0.15)


def test_gradient_is_high_less_low_similarity():
    units, distances = random_words(80, 8)
    cosine, distance = listed(units, distances)
    sums = pair_sums(units, distances)
    expected = cosine[1 / (1 + distance) >= 0.25].mean() - cosine[1 / (1 + distance) < 0.1].mean()
    assert jackknife(sums, mean_gradient(sums)).value == pytest.approx(expected, abs=1e-9)


def test_cosines_that_are_all_alike_have_no_correlation():
    _, distances = random_words(20, 9)
    same = torch.ones(20, 3, dtype=torch.float64) / 3**0.5
    found = correlate(same, distances)
    assert np.isnan(found.pearson.value)
    assert np.isnan(found.spearman.value)


def test_parts_of_speech_alone_correlate_only_where_an_artificial_root_mixes_them():
    """Spec K, confound: one-hot parts of speech follow library similarities, and say nothing of nouns alone."""
    nouns = random_taxonomy(150, 10, roots=0.0)
    parents = [nouns.parents(sense).tolist() for sense in range(150)] + [[]] * 100
    mixed = made_taxonomy(parents, ["n"] * 150 + ["a"] * 100)
    one_hot = unit_rows(torch.eye(2)[[0] * 150 + [1] * 100], "raw", CPU)
    library = torch.from_numpy(path_distances(mixed, range(250), artificial_root=True))
    assert correlate(one_hot, library).pearson.value > 0.2
    strict = torch.from_numpy(path_distances(mixed, range(250)))
    assert np.isnan(correlate(one_hot, strict).pearson.value)
    assert np.isnan(correlate(one_hot[:150], strict[:150, :150]).pearson.value)


def test_midranks_are_scipys():
    values = np.random.default_rng(0).integers(0, 6, 200)
    counts = np.bincount(values, minlength=6)
    assert midranks(counts)[values] == pytest.approx(stats.rankdata(values))


def test_whitened_rows_vary_alike_in_every_direction():
    rows = torch.randn(300, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * torch.tensor(
        [9, 3, 1, 1, 0.1]
    )
    units = unit_rows(rows @ torch.randn(5, 8, dtype=torch.float64), "whitened", CPU)
    assert units.shape == (300, 5)
    assert torch.linalg.svdvals(units).div(300**0.5) == pytest.approx(np.full(5, 5**-0.5), rel=0.15)


def test_too_few_words_to_whiten_are_refused():
    """Of n words in n - 1 directions or more, all whitened cosines are -1 / (n - 1)."""
    rows = torch.randn(9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with pytest.raises(StrataError, match="9 words differ in all of 8 directions"):
        unit_rows(rows, "whitened", CPU)
    assert unit_rows(rows[:, :5], "whitened", CPU).shape == (9, 5)
