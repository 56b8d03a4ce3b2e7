"""What is measured together: which pairs take part, and what is corrected for how many tests."""

import numpy as np
import torch

from src.geometry.lexicon.distances import path_distances
from src.geometry.words.profiling import ProfileSettings, WordProfile, WordRows, profile_words
from tests.fixtures.random_taxonomy import made_taxonomy

TAXONOMY = made_taxonomy([[], [0], [0], [1], [1], [2], [2], [3], [4], [5], [6], [6]])
SENSES = [*range(12), 3, 7]  # two senses have two words each
SETTINGS = ProfileSettings("raw", permutations=39, class_permutations=19, min_class=2, neighbours=2, seed=0)


def profiled(*rows: WordRows) -> list[WordProfile]:
    distances = path_distances(TAXONOMY, SENSES)
    return profile_words(rows, TAXONOMY, SENSES, distances, None, SETTINGS, torch.device("cpu"))


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(14, 6, generator=torch.Generator().manual_seed(seed))


def test_pairs_of_one_definition_stay_out_where_rows_are_of_senses():
    """BUG D-2: two words of one sense have one definition, so the same row, and cosine 1 at distance 0."""
    rows, everyone = drawn(0), np.arange(14)
    rows[12], rows[13] = rows[3], rows[7]
    words, senses = profiled(WordRows("static", None, everyone, rows), WordRows("d", 0, everyone, rows, by_sense=True))
    assert (words.correlations.n_pairs, senses.correlations.n_pairs) == (91, 89)
    assert words.correlations.pearson.value > senses.correlations.pearson.value


def test_sets_of_other_words_are_corrected_for_too():
    everyone, some = np.arange(14), np.arange(1, 14)
    alone = profiled(WordRows("static", None, everyone, drawn(1)))[0]
    both = profiled(WordRows("static", None, everyone, drawn(1)), WordRows("contexts", 0, some, drawn(2)[some]))
    assert both[0].pearson_chance.p == alone.pearson_chance.p
    assert both[0].pearson_chance.adjusted == min(1, 2 * alone.pearson_chance.adjusted)


def test_the_more_is_measured_the_farther_the_interval_of_the_largest_reaches():
    everyone = np.arange(14)
    one = profiled(WordRows("a", 0, everyone, drawn(3)))[0]
    several = profiled(*(WordRows("a", layer, everyone, drawn(3 + layer)) for layer in range(6)))
    assert 1.8 < one.pearson_reach < 2.1
    assert len({each.pearson_reach for each in several}) == 1
    assert several[0].pearson_reach > 2.2
