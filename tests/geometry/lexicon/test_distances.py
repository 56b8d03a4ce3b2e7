from collections import deque

import numpy as np
import pytest

from src.errors import StrataError
from src.geometry.lexicon.ancestors import find_ancestors
from src.geometry.lexicon.distances import path_distances
from src.geometry.lexicon.taxonomy import UNCONNECTED, Taxonomy
from tests.fixtures.random_taxonomy import made_taxonomy, random_taxonomy


def climbed(taxonomy: Taxonomy, sense: int) -> dict[int, int]:
    """Ancestors and distances, one sense and one edge at a time."""
    found, queue = {}, deque([(sense, 0)])
    while queue:
        at, steps = queue.popleft()
        if at not in found:
            found[at] = steps
            queue.extend((int(parent), steps + 1) for parent in taxonomy.parents(at))
    return found


def naive_distance(taxonomy: Taxonomy, one: int, other: int) -> int:
    ours, theirs = climbed(taxonomy, one), climbed(taxonomy, other)
    return min((ours[sense] + theirs[sense] for sense in ours.keys() & theirs.keys()), default=UNCONNECTED)


@pytest.mark.parametrize("seed", range(5))
def test_ancestors_are_those_met_on_the_way_up_at_the_fewest_steps(seed):
    taxonomy = random_taxonomy(200, seed)
    senses = np.random.default_rng(seed).integers(0, 200, 50)
    found = find_ancestors(taxonomy, senses)
    for row, sense in enumerate(senses):
        of_row = found.row == row
        assert dict(zip(found.sense[of_row], found.distance[of_row], strict=True)) == climbed(taxonomy, int(sense))


@pytest.mark.parametrize("seed", range(5))
def test_path_distances_are_the_shortest_through_a_common_ancestor(seed):
    taxonomy = random_taxonomy(150, seed, roots=0.1)
    senses = np.random.default_rng(seed).integers(0, 150, 60)  # some more than once
    expected = [[naive_distance(taxonomy, int(i), int(j)) for j in senses] for i in senses]
    found = path_distances(taxonomy, senses)
    np.testing.assert_array_equal(found, expected)
    assert (found == UNCONNECTED).any()
    assert len(np.unique(found)) > 5


def test_synonyms_are_at_distance_zero():
    taxonomy = made_taxonomy([[], [0], [0]])
    np.testing.assert_array_equal(path_distances(taxonomy, [1, 1, 2]), [[0, 0, 2], [0, 0, 2], [2, 2, 0]])


def test_a_circle_is_refused_and_a_chain_of_126_steps_is_not():
    chain = made_taxonomy([[]] + [[i] for i in range(126)])
    assert path_distances(chain, [0, 126])[0, 1] == 126
    for taxonomy in (made_taxonomy([[]] + [[i] for i in range(127)]), made_taxonomy([[1], [0]])):
        with pytest.raises(StrataError, match="circle"):
            path_distances(taxonomy, [0, len(taxonomy.names) - 1])


def test_no_senses_have_no_distances():
    assert path_distances(random_taxonomy(5, 0), []).shape == (0, 0)
