"""Words and those above them: true steps, control and slope, pair by pair."""

import numpy as np
import pytest
import torch

from src.geometry.words.cosines import unit_rows
from src.geometry.words.hypernyms import clustered_slope, hypernym_decay, hypernym_pairs
from tests.fixtures.random_taxonomy import made_taxonomy, random_taxonomy


def test_steps_are_true_ones_where_senses_between_have_no_word():
    """BUG D-5: the index in a chain of matched senses is no number of steps."""
    chain = made_taxonomy([[], [0], [1], [2], [3]])
    pairs = hypernym_pairs(chain, [4, 2, 0])
    found = set(zip(pairs.word.tolist(), pairs.ancestor.tolist(), pairs.steps.tolist(), strict=True))
    assert found == {(0, 1, 2), (0, 2, 4), (1, 2, 2)}
    assert pairs.depth.tolist() == [4, 2, 0]


def test_all_parents_count_and_the_shortest_way():
    """BUG D-6: one parent of several, which one by chance."""
    diamond = made_taxonomy([[], [0], [1], [2, 0]])
    pairs = hypernym_pairs(diamond, [0, 1, 2, 3])
    found = set(zip(pairs.word.tolist(), pairs.ancestor.tolist(), pairs.steps.tolist(), strict=True))
    assert found == {(1, 0, 1), (2, 1, 1), (2, 0, 2), (3, 2, 1), (3, 1, 2), (3, 0, 1)}
    assert pairs.depth.tolist() == [0, 1, 2, 1]


def test_words_of_one_sense_are_not_above_each_other():
    pairs = hypernym_pairs(made_taxonomy([[], [0]]), [1, 1, 0, 0])
    found = set(zip(pairs.word.tolist(), pairs.ancestor.tolist(), strict=True))
    assert found == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_means_and_control_are_those_of_listed_pairs():
    taxonomy = random_taxonomy(40, 21)
    senses = [sense for sense in range(40) if sense % 5]
    units = unit_rows(
        torch.randn(len(senses), 7, generator=torch.Generator().manual_seed(0)), "raw", torch.device("cpu")
    )
    pairs = hypernym_pairs(taxonomy, senses)
    above = {(word, up) for word, up in zip(pairs.word.tolist(), pairs.ancestor.tolist(), strict=True)}
    cosine = (units @ units.T).numpy()
    listed: dict[int, list[tuple[float, float]]] = {}
    for word, up, steps in zip(pairs.word.tolist(), pairs.ancestor.tolist(), pairs.steps.tolist(), strict=True):
        others = [
            other
            for other in range(len(senses))
            if pairs.depth[other] == pairs.depth[up] and other != word and (word, other) not in above
        ]
        if others:
            listed.setdefault(steps, []).append((cosine[word, up], cosine[word, others].mean()))
    decay = hypernym_decay(units, pairs)
    assert decay is not None
    assert decay.steps.tolist() == sorted(listed)
    for place, steps in enumerate(decay.steps.tolist()):
        cosines, controls = np.array(listed[steps]).T
        assert decay.n_pairs[place] == len(cosines)
        assert decay.cosine[place] == pytest.approx(cosines.mean())
        assert decay.control[place] == pytest.approx(controls.mean())


def test_a_planted_decay_is_found_beyond_its_control():
    rng = np.random.default_rng(3)
    parents: list[list[int]] = [[]] + [[(i - 1) // 3] for i in range(1, 121)]
    rows = rng.normal(size=(121, 48))
    for sense, above in enumerate(parents):
        for parent in above:
            rows[sense] = 0.8 * rows[parent] + 0.6 * rows[sense]
    units = unit_rows(torch.from_numpy(rows), "centred", torch.device("cpu"))
    decay = hypernym_decay(units, hypernym_pairs(made_taxonomy(parents), list(range(121))))
    assert decay is not None
    assert decay.slope.high < 0
    assert decay.excess_slope.high < 0
    assert decay.cosine[0] > 0.6
    assert abs(decay.control).max() < 0.3


def test_no_steps_to_compare():
    flat = made_taxonomy([[], [0], [0], [0]])
    units = unit_rows(torch.eye(4), "raw", torch.device("cpu"))
    assert hypernym_decay(units, hypernym_pairs(flat, [0, 1, 2, 3])) is None


def test_slope_of_single_clusters_has_the_error_of_hc1():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=50), rng.normal(size=50)
    found = clustered_slope(x, y, np.arange(50))
    design = np.stack([np.ones(50), x], 1)
    inverse = np.linalg.inv(design.T @ design)
    residual = y - design @ (inverse @ design.T @ y)
    sandwich = inverse @ (design.T * residual**2 @ design) @ inverse * 50 / 48
    assert found.value == pytest.approx(np.polyfit(x, y, 1)[0])
    assert (found.high - found.low) / 2 / 2.0095752 == pytest.approx(np.sqrt(sandwich[1, 1]), rel=1e-6)


def test_copies_within_clusters_do_not_narrow_the_interval():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=40), rng.normal(size=40)
    once = clustered_slope(x, y, np.arange(40))
    copied = clustered_slope(np.tile(x, 25), np.tile(y, 25), np.tile(np.arange(40), 25))
    assert copied.n_clusters == 40
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.03)
