"""Categories against matched sets: planted ones are found; words that share their norm are no category."""

import numpy as np
import pytest
import torch

from src.geometry.embedding.categories import (
    MatchedCategory,
    _mean_cosines,
    category_statistics,
    centroid_cosines,
    matched_categories,
    matched_sets,
    nearest_purity,
    words_like,
)
from src.geometry.embedding.category_lists import CATEGORIES
from src.geometry.embedding.moments import table_moments
from src.geometry.embedding.rows import Rows
from src.models.token_table import token_table
from tests.fixtures.chatml_model import chatml_tokenizer
from tests.fixtures.tiny_tokenizers import unigram_tokenizer

CPU = torch.device("cpu")
N, D = 800, 32


def statistics_of(table, tokens, n_draws=400, seed=0):
    rows = Rows(table, np.arange(len(table)), CPU)
    moments = table_moments(rows)
    return category_statistics(
        rows,
        moments.norms.numpy(),
        MatchedCategory("planted", tuple(map(str, tokens)), tuple(tokens)),
        rows.ids,
        moments.mean,
        (moments.cosine.mean, moments.centred_cosine_mean),
        n_draws,
        np.random.default_rng(seed),
    )


def random_table(seed=0, mean=0.3):
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed)) + mean


def test_a_planted_category_is_beyond_its_matched_sets():
    table = random_table()
    table[100:112] += torch.randn(D, generator=torch.Generator().manual_seed(9))
    found = statistics_of(table, range(100, 112))
    unit = torch.nn.functional.normalize(table[100:112].double(), dim=1)
    pairs = (unit @ unit.T)[np.triu_indices(12, 1)]
    assert found.cosine == pytest.approx(float(pairs.mean()), abs=1e-12)
    assert found.p == 1 / 401
    assert found.z > 5
    assert found.centred_z > 5
    assert found.lift == pytest.approx(found.cosine - table_moments(Rows(table, np.arange(N), CPU)).cosine.mean)


def test_random_words_are_within_their_matched_sets():
    rng = np.random.default_rng(0)
    table = random_table()
    found = [statistics_of(table, rng.choice(N, 8, replace=False), 99, seed) for seed in range(40)]
    p = np.array([each.p for each in found])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)
    assert np.mean([each.z for each in found]) == pytest.approx(0, abs=0.4)


def test_words_that_are_alike_by_their_norm_alone_are_no_category():
    """Frequent words are long and share a direction: a lift over all pairs, and none over sets of like norm."""
    draws = torch.Generator().manual_seed(4)
    table = torch.randn(N, D, generator=draws)
    common = torch.randn(D, generator=draws)
    table += torch.linspace(0, 2, N)[:, None] * common  # the later, the longer, and the more alike
    tokens = np.random.default_rng(5).choice(np.arange(700, N), 12, replace=False)
    found = statistics_of(table, tokens)
    assert found.lift > 0.25
    assert found.matched == pytest.approx(found.cosine, abs=0.1)
    assert found.p > 0.01
    assert found.matched_norm == pytest.approx(found.norm, rel=0.05)


def test_matched_sets_are_alike_in_norm_and_rank_and_have_no_word_twice():
    rng = np.random.default_rng(0)
    norms = rng.permutation(np.linspace(1, 10, N))
    ids = rng.choice(N, 20, replace=False)
    others = np.setdiff1d(np.arange(N), ids)
    sets = matched_sets(norms, ids, others, 200, rng)
    assert sets.shape == (200, 20)
    assert not np.isin(sets, ids).any()
    assert all(len(set(row)) == 20 for row in sets.tolist())
    # word by word: far nearer than random words are (a third of the range on average)
    assert np.abs(norms[sets] - norms[ids]).mean() < 0.15 * 9
    assert np.abs(sets - ids).mean() < 0.15 * N


def test_rows_of_zeros_are_in_no_pair_of_a_matched_set():
    table = random_table()
    table[:200] = 0
    unit = torch.nn.functional.normalize(table.double(), dim=1)
    sets = np.array([[0, 300, 301, 302], [300, 301, 302, 303], [0, 1, 2, 300]])
    means = _mean_cosines(Rows(table, np.arange(N), CPU), sets)
    first, second = ((unit[ids] @ unit[ids].T)[np.triu_indices(len(ids), 1)] for ids in (sets[0][1:], sets[1]))
    np.testing.assert_allclose(means, [float(first.mean()), float(second.mean()), 0.0], atol=1e-12)


def test_too_few_other_words_give_no_set():
    norms = np.linspace(1, 2, 10)
    with pytest.raises(ValueError, match="2 tokens"):
        matched_sets(norms, np.arange(3), np.arange(3, 5), 10, np.random.default_rng(0))
    table = random_table()[:12]
    found = statistics_of(table, range(8))
    assert np.isnan(found.p)
    assert found.cosine == pytest.approx(statistics_of(table, range(8)).cosine)


def test_lists_are_disjoint_and_larger_than_the_notebooks():
    words = [word for words in CATEGORIES.values() for word in words]
    assert len(set(words)) == len(words) > 300
    assert all(len(members) >= 10 for members in CATEGORIES.values())
    assert all(word == word.lower() and word.isalpha() for word in words)


def test_words_are_found_by_encoding_and_never_by_id():
    """BUG A-2: ids 48 to 57, 65 to 90 and 97 to 122 are no digits and letters of a byte-level vocabulary."""
    tokenizer = chatml_tokenizer()
    digits = tuple("0123456789")
    [found] = matched_categories(tokenizer, {"digits": digits})
    assert found.words == digits
    assert [tokenizer.decode([token]).strip() for token in found.tokens] == list(digits)
    assert set(found.tokens).isdisjoint(range(48, 58)) or tokenizer.decode([48]).strip() == "0"
    assert tokenizer.decode(list(range(48, 58))) != "0123456789"


def test_small_categories_are_left_out_and_tokens_belong_to_one():
    tokenizer = unigram_tokenizer()
    lists = {"three": ["7", "monday", "a"], "again": ["7", "monday", "s"], "pieces": ["cat", "dog", "5"]}
    assert [each.name for each in matched_categories(tokenizer, lists)] == ["three"]


def test_sets_are_drawn_from_words():
    tokenizer = chatml_tokenizer()
    table = token_table(tokenizer, len(tokenizer) + 4)
    texts = [table.texts[token] for token in words_like(table)]
    assert len(texts) > 100
    assert all(text.startswith(" ") and text.strip().isalpha() for text in texts)


def test_the_nearest_word_is_of_the_same_category():
    table = random_table(mean=2.0)
    categories = []
    for number in range(4):
        tokens = range(50 * number, 50 * number + 6)
        table[list(tokens)] += 2 * torch.randn(D, generator=torch.Generator().manual_seed(20 + number))
        categories.append(MatchedCategory(str(number), tuple(map(str, tokens)), tuple(tokens)))
    rows = Rows(table, np.arange(N), CPU)
    mean = table_moments(rows).mean
    found = nearest_purity(rows, categories, mean, 200, np.random.default_rng(0))
    assert found.share > 0.9
    assert found.by_chance == pytest.approx(5 / 23, abs=0.03)
    assert found.p == 1 / 201
    pairs = centroid_cosines(rows, categories, mean)
    centroids = np.stack([table[list(each.tokens)].double().mean(0).numpy() for each in categories])
    unit = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    np.testing.assert_allclose(pairs.raw, unit @ unit.T, atol=1e-12)
    assert pairs.centred[0, 1] < pairs.raw[0, 1]


def test_words_of_no_category_are_no_purer_than_chance():
    rng = np.random.default_rng(7)
    rows = Rows(random_table(3), np.arange(N), CPU)
    chosen = rng.choice(N, 24, replace=False).reshape(4, 6).tolist()
    categories = [MatchedCategory(str(tokens), tuple(map(str, tokens)), tuple(tokens)) for tokens in chosen]
    found = nearest_purity(rows, categories, table_moments(rows).mean, 300, rng)
    assert found.p > 0.05
