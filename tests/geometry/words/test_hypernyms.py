"""Words and those above them: true steps, control and slope, pair by pair."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src.geometry.lexicon.sources import read_taxonomy
from src.geometry.words.cosines import unit_rows
from src.geometry.words.hypernyms import hypernym_decay, hypernym_pairs
from tests.fixtures.random_taxonomy import made_taxonomy, random_taxonomy

TESTBED = Path(__file__).resolve().parents[3] / "testbed"


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
    decay = hypernym_decay(units, pairs, 19, 0)
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
    decay = hypernym_decay(units, hypernym_pairs(made_taxonomy(parents), list(range(121))), 99, 0)
    assert decay is not None
    assert decay.slope.high < 0
    assert decay.excess_slope.high < 0
    assert decay.slope.p == decay.excess_slope.p == 0.01
    assert decay.cosine[0] > 0.6
    assert abs(decay.control).max() < 0.3


def test_no_steps_to_compare():
    flat = made_taxonomy([[], [0], [0], [0]])
    units = unit_rows(torch.eye(4), "raw", torch.device("cpu"))
    assert hypernym_decay(units, hypernym_pairs(flat, [0, 1, 2, 3]), 19, 0) is None


def test_slopes_and_their_jackknife_are_those_of_listed_pairs():
    taxonomy = random_taxonomy(40, 21)
    units = unit_rows(torch.randn(40, 7, generator=torch.Generator().manual_seed(1)), "centred", torch.device("cpu"))
    pairs, cosine = hypernym_pairs(taxonomy, range(40)), (units @ units.T).numpy()
    above = np.zeros((40, 40), bool)
    above[pairs.word, pairs.ancestor] = True

    def slopes(alive: set[int]) -> list[float]:
        listed = []
        for word, up, steps in zip(pairs.word.tolist(), pairs.ancestor.tolist(), pairs.steps.tolist(), strict=True):
            deep = [o for o in alive if pairs.depth[o] == pairs.depth[up] and o != word and not above[word, o]]
            if {word, up} <= alive and deep:
                listed.append((steps, cosine[word, up], cosine[word, deep].mean()))
        x, y, control = np.array(listed).T
        return [np.polyfit(x, values, 1)[0] for values in (y, control, y - control)]

    decay = hypernym_decay(units, pairs, 19, 0)
    assert decay is not None
    left = np.array([slopes(set(range(40)) - {word}) for word in range(40)])
    error = np.sqrt(39 / 40 * np.square(left - left.mean(0)).sum(0))
    for place, found in enumerate((decay.slope, decay.control_slope, decay.excess_slope)):
        assert found.value == pytest.approx(slopes(set(range(40)))[place])
        assert (found.high - found.value, found.value - found.low) == pytest.approx([2.0226909 * error[place]] * 2)


def test_random_words_have_no_slope():
    """A few words stand above most, and a word below several: errors clustered by ancestor miss 0 in 8, 16 and 10."""
    taxonomy = read_taxonomy(str(TESTBED / "taxonomy.json"))
    n = len(taxonomy.pos)
    pairs, draws = hypernym_pairs(taxonomy, range(n)), torch.Generator().manual_seed(2)
    missed, small = np.zeros(3), np.zeros(3)
    for draw in range(30):
        # norms and a direction of frequency, which no taxonomy knows
        frequency = torch.randn(n, 1, generator=draws)
        rows = torch.randn(n, 24, generator=draws) + 0.5 * frequency * torch.randn(24, generator=draws)
        rows *= (frequency / 2).exp()
        decay = hypernym_decay(unit_rows(rows, "centred", torch.device("cpu")), pairs, 19, draw)
        assert decay is not None
        slopes = (decay.slope, decay.control_slope, decay.excess_slope)
        small += [each.p <= 0.1 for each in slopes]
        missed += [each.low > 0 or each.high < 0 for each in slopes]
    assert missed.max() <= 5  # 1.5 expected
    assert small.max() <= 8  # 3 expected


def test_many_words_are_left_out_in_groups(monkeypatch):
    taxonomy = random_taxonomy(300, 5)
    units = unit_rows(torch.randn(300, 9, generator=torch.Generator().manual_seed(4)), "raw", torch.device("cpu"))
    grouped = hypernym_decay(units, hypernym_pairs(taxonomy, range(300)), 19, 0)
    monkeypatch.setattr("src.geometry.words.hypernyms._MOST_GROUPS", 300)
    single = hypernym_decay(units, hypernym_pairs(taxonomy, range(300)), 19, 0)
    assert grouped is not None
    assert single is not None
    ratio = (grouped.slope.high - grouped.slope.low) / (single.slope.high - single.slope.low)
    assert ratio == pytest.approx(1, abs=0.4)
