import json
from pathlib import Path

import numpy as np

from src.geometry.lexicon.distances import path_distances, wu_palmer
from src.geometry.lexicon.sources import read_taxonomy
from testbed.lexicon import KINDS, PARENT, vocabulary
from testbed.taxonomy import as_taxonomy

PATH = Path(__file__).resolve().parents[2] / "testbed" / "taxonomy.json"


def test_the_file_holds_what_the_lexicon_says():
    assert json.loads(PATH.read_text()) == json.loads(json.dumps(as_taxonomy()))
    taxonomy = read_taxonomy(str(PATH))
    assert set(taxonomy.names) == {*PARENT, *PARENT.values(), *(word for kind in KINDS.values() for word in kind)}


def test_every_word_is_a_token_of_the_models():
    taxonomy = read_taxonomy(str(PATH))
    words = set(taxonomy.words) | {word for text in taxonomy.definitions for word in text.split()}
    assert words <= set(vocabulary())


def test_distances_are_those_of_the_planted_kinds():
    taxonomy = read_taxonomy(str(PATH))
    senses = [taxonomy.names.index(name) for name in ("dog", "cat", "robin", "oak", "hammer", "animal")]
    # mammal; animal; organism; thing (artefacts lie one level higher)
    assert path_distances(taxonomy, senses)[0].tolist() == [0, 2, 4, 6, 7, 2]
    # D of mammal is 4, of animal 3, of organism 2, of thing 1
    expected = np.array([1, 8 / 10, 6 / 10, 4 / 10, 2 / 9, 6 / 8], np.float32)
    np.testing.assert_array_equal(wu_palmer(taxonomy, senses)[0], expected)
