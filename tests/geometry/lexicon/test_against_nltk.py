"""On a made-up database in WordNet's format, which always is there. (test_installed_wordnet.py: on the real one.)"""

import numpy as np
import pytest

from src.geometry.lexicon.ancestors import depths, find_ancestors, path_to_ancestors
from src.geometry.lexicon.distances import path_distances, wu_palmer
from src.geometry.lexicon.taxonomy import UNCONNECTED
from tests.fixtures.nltk_pairs import assert_equal_to_nltk, some_senses


@pytest.mark.parametrize(("pos", "pairs"), [("n", 5000), ("v", 2000), ("nvasr", 2500)])
@pytest.mark.parametrize("artificial_root", [False, True])
def test_similarities_equal_those_of_nltk(made_wordnet, pos, pairs, artificial_root):
    senses = some_senses(made_wordnet.taxonomy, pos, 800)
    assert_equal_to_nltk(made_wordnet.taxonomy, made_wordnet.synsets, senses, pairs, artificial_root)


def test_the_made_wordnet_has_the_cases_that_are_easily_missed(made_wordnet):
    """Or the equality above would say less than it seems to."""
    taxonomy = made_wordnet.taxonomy
    nouns, verbs = (np.flatnonzero(np.array(taxonomy.pos) == pos) for pos in "nv")
    assert (np.diff(taxonomy.parent_start)[nouns] > 1).sum() > 300
    assert (np.diff(taxonomy.parent_start)[verbs] == 0).sum() > 20
    assert any(synset.instance_hypernyms() for synset in made_wordnet.synsets)
    above = find_ancestors(taxonomy, nouns)
    assert (path_to_ancestors(taxonomy, above) < above.distance).any()  # shorter than straight up
    strict, library = (wu_palmer(taxonomy, nouns[:1500], mode) for mode in (False, True))
    np.testing.assert_array_equal(strict, library)  # nouns need no artificial root
    assert (strict != strict.T).any()  # the first sense wins a tie
    shortest, longest = depths(taxonomy, nouns)
    assert (shortest < longest).any()
    distances = path_distances(taxonomy, verbs[:300])
    assert (distances == UNCONNECTED).any()
    # a root of verbs whose name comes before NLTK's *ROOT*
    assert taxonomy.names[verbs[0]] < "*ROOT*"


def test_depths_are_those_of_nltk(made_wordnet):
    senses = some_senses(made_wordnet.taxonomy, "nv", 300)
    shortest, longest = depths(made_wordnet.taxonomy, senses)
    assert [made_wordnet.synsets[sense].min_depth() for sense in senses] == shortest.tolist()
    assert [made_wordnet.synsets[sense].max_depth() for sense in senses] == longest.tolist()


def test_modifiers_are_a_third_alike_under_nltks_root_and_not_comparable_without(made_wordnet):
    """BUG D-3: whatever the words mean; so is an adjective and the root of nouns."""
    taxonomy = made_wordnet.taxonomy
    modifiers = np.unique(some_senses(taxonomy, "asr", 60))
    apart = ~np.eye(len(modifiers), dtype=bool)
    np.testing.assert_array_equal(1 / (1.0 + path_distances(taxonomy, modifiers, True)[apart]), 1 / 3)
    np.testing.assert_array_equal(wu_palmer(taxonomy, modifiers, True)[apart], 0.5)
    assert (path_distances(taxonomy, modifiers)[apart] == UNCONNECTED).all()
    assert np.isnan(wu_palmer(taxonomy, modifiers)[apart]).all()

    entity = taxonomy.names.index("entity.n.01")
    both = [modifiers[0], entity]
    assert path_distances(taxonomy, both, True)[0, 1] == 2
    assert path_distances(taxonomy, both)[0, 1] == UNCONNECTED
