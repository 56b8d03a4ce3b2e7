"""Orders that are planted are found, orders that are not are not, and words are found as tokens of one spelling."""

import itertools
import json

import numpy as np
import pytest
import torch

from src.errors import StrataError
from src.geometry.embedding.ordered_sets import BUILT_IN, OrderedSet, cosine_matrix, find_set, order_statistics
from src.geometry.embedding.word_lists import read_categories, read_ordered_sets
from tests.fixtures.chatml_model import chatml_tokenizer
from tests.fixtures.tiny_tokenizers import unigram_tokenizer, wordpiece_tokenizer

DIGITS = BUILT_IN[0]


def random_cosines(n, rng, d=64):
    return cosine_matrix(torch.from_numpy(rng.standard_normal((n, d))))


def line(n):
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n)))


def circle(n):
    return np.minimum(line(n), n - line(n))


def test_words_around_a_circle_are_in_order():
    angles = 2 * torch.pi * torch.arange(12) / 12
    rows = torch.stack([angles.cos(), angles.sin(), torch.full((12,), 2.0)], 1)
    found = order_statistics(cosine_matrix(rows), circle(12), 500, np.random.default_rng(0))
    assert found.pearson < -0.95
    assert found.p == 1 / 501
    assert found.gap > 0.1
    assert (found.nearest, found.nearest_by_chance) == (1.0, pytest.approx(2 / 11))


def test_the_correlation_is_that_over_pairs():
    rng = np.random.default_rng(1)
    cosines = random_cosines(9, rng)
    above = np.triu_indices(9, 1)
    found = order_statistics(cosines, line(9), 100, rng)
    assert found.pearson == pytest.approx(np.corrcoef(line(9)[above], cosines[above])[0, 1], abs=1e-12)
    assert found.adjacent == pytest.approx(np.diag(cosines, 1).mean())
    assert found.further == pytest.approx(cosines[above][line(9)[above] > 1].mean())


def test_all_relabellings_of_few_words_are_tried():
    rng = np.random.default_rng(2)
    cosines, distances = random_cosines(5, rng, d=6), line(5)
    above = np.triu_indices(5, 1)

    def pearson(order):
        return np.corrcoef(distances[above], cosines[np.ix_(order, order)][above])[0, 1]

    null = [pearson(order) for order in itertools.permutations(range(5))]
    truth = np.mean(np.array(null) <= pearson(range(5)) + 1e-12)
    found = order_statistics(cosines, distances, 120, rng)
    assert (found.exact, found.n_draws) == (True, 120)
    assert found.p == pytest.approx(truth)
    assert found.null_std == pytest.approx(np.std(null))
    assert not order_statistics(cosines, distances, 119, rng).exact


def test_a_cycle_of_seven_has_no_smaller_p_than_its_symmetries():
    angles = 2 * torch.pi * torch.arange(7) / 7
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    found = order_statistics(cosine_matrix(rows), circle(7), 10_000, np.random.default_rng(0))
    assert found.exact
    assert found.p == pytest.approx(14 / 5040)


def test_random_digits_have_the_spread_of_the_spec_and_few_small_p():
    """Spec A6: of ten random vectors, r has a standard deviation of 0.155, and |r| < 0.30 in 95 %."""
    rng = np.random.default_rng(3)
    found = [order_statistics(random_cosines(10, rng, d=512), line(10), 99, rng) for _ in range(300)]
    pearsons = np.array([each.pearson for each in found])
    assert pearsons.std() == pytest.approx(0.155, abs=0.02)
    assert (np.abs(pearsons) < 0.30).mean() == pytest.approx(0.95, abs=0.03)
    assert np.mean([each.null_std for each in found]) == pytest.approx(0.155, abs=0.015)
    p = np.array([each.p for each in found])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert p.mean() == pytest.approx(0.5, abs=0.06)


def test_equal_rows_have_no_order():
    found = order_statistics(np.ones((10, 10)), line(10), 99, np.random.default_rng(0))
    assert np.isnan(found.pearson)
    assert np.isnan(found.p)


@pytest.mark.parametrize("d", [7, 64, 128, 1000])
def test_copies_of_one_row_have_no_order_either(d):
    # their cosines are 1 but for rounding, which correlated with steps at r = 0.87, p = 0.0005
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.standard_normal(d) * rng.uniform(0.5, 1.5, (10, 1)))
    for table in (rows, rows[:1].expand(10, d).contiguous()):
        found = order_statistics(cosine_matrix(table), line(10), 99, np.random.default_rng(0))
        assert np.isnan(found.pearson)
        assert np.isnan(found.p)


def test_too_few_words_are_refused():
    with pytest.raises(ValueError, match="3 words"):
        order_statistics(np.eye(3), line(3), 99, np.random.default_rng(0))


def test_digits_are_never_the_word_boundary():
    """BUG A-1: with the first of several ids all digits are one row, and all cosines 1."""
    tokenizer = unigram_tokenizer()
    found = find_set(tokenizer, OrderedSet("two", ("5", "7", "cat", "monday")))
    assert found.words == ("5", "7", "monday")
    assert found.missing == ("cat",)
    assert found.tokens == tuple(tokenizer.convert_tokens_to_ids(name) for name in ("5", "▁7", "▁monday"))


def test_digits_of_a_byte_level_vocabulary():
    tokenizer = chatml_tokenizer()
    found = find_set(tokenizer, DIGITS)
    assert found.words == DIGITS.words
    assert [tokenizer.decode([token]).strip() for token in found.tokens] == list("0123456789")


def test_spellings_are_not_mixed():
    tokenizer = chatml_tokenizer()
    tokenizer.add_tokens([" zag", " zog", "Zug"])
    found = find_set(tokenizer, OrderedSet("z", ("zig", "zag", "zog", "zug")))
    assert found.words == ("zag", "zog")
    assert found.spelling == " zag"


def test_two_words_of_one_token_belong_to_nobody():
    found = find_set(wordpiece_tokenizer(), OrderedSet("case", ("Monday", "monday", "5", "a")))
    assert found.words == ("5", "a")


def test_missing_words_leave_the_distances_of_the_others_as_they_are():
    found = find_set(unigram_tokenizer(), OrderedSet("hours", ("5", "x", "y", "7", "z", "monday"), cycle=True))
    assert found.places == (0, 3, 5)
    assert found.distances.tolist() == [[0, 3, 1], [3, 0, 2], [1, 2, 0]]


def test_built_in_sets_have_each_word_once():
    for each in BUILT_IN:
        assert len(set(each.words)) == len(each.words) >= 7


def test_own_sets(tmp_path):
    path = tmp_path / "sets.json"
    path.write_text(
        json.dumps({"sizes": ["xs", "s", "m", "l"], "seasons": {"words": ["a", "b", "c", "d"], "cycle": True}})
    )
    assert read_ordered_sets(path) == (
        OrderedSet("sizes", ("xs", "s", "m", "l")),
        OrderedSet("seasons", ("a", "b", "c", "d"), cycle=True),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": ["x", "y", "z"]}', "'a' has 3 words"),
        ('{"a": ["x", "y", "z", "x"]}', "'x' is there twice in a"),
        ('{"a": [1, 2, 3, 4]}', "no word list"),
        ('{"a": {"words": ["x", "y", "z", "w"], "circle": true}}', "no word list"),
        ("[]", "no word list"),
        ("{", "no word list"),
        ("[" * 100_000, "no word list"),
        ("{}", "holds no words"),
    ],
)
def test_bad_sets_are_refused_with_one_message(tmp_path, content, message):
    path = tmp_path / "sets.json"
    path.write_text(content)
    with pytest.raises(StrataError, match=message):
        read_ordered_sets(path)


def test_a_word_of_two_categories_is_refused(tmp_path):
    path = tmp_path / "categories.json"
    path.write_text('{"animals": ["dog", "fish"], "food": ["fish", "bread"]}')
    with pytest.raises(StrataError, match="'fish' is there twice"):
        read_categories(path)
    with pytest.raises(StrataError, match="can't be read"):
        read_categories(tmp_path / "none.json")
