"""What parts of speech alone do to similarities of the real WordNet; test_lexicon_notebook.py has it on a made one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from src.errors import StrataError
from src.geometry.lexicon.database import find_database, open_database
from src.geometry.lexicon.distances import path_distances
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.lexicon.wordnet import read_wordnet
from src.geometry.words.matching import match_words
from src.geometry.words.notebook import notebook_entries
from src.geometry.words.pair_sums import correlation_with, jackknife, pair_sums
from src.models.token_table import TokenTable

_TOKENS = 9362  # the vocabulary that spec D's figures are of


class WholeWords:
    """A tokenizer of the most frequent single words of WordNet, one token each."""

    unk_token_id = None

    def __init__(self, taxonomy: Taxonomy) -> None:
        counts = {
            word: sum(sense.count for sense in senses)
            for word, senses in taxonomy.words.items()
            if word.isalpha() and word.isascii()
        }
        self.words = sorted(counts, key=lambda word: (-counts[word], word))[:_TOKENS]
        self._number = {word: number for number, word in enumerate(self.words)}

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        words = [text.strip() for text in texts]
        return {"input_ids": [[self._number[word]] if word in self._number else [0, 0] for word in words]}

    def table(self) -> TokenTable:
        none = np.zeros(len(self.words), bool)
        return TokenTable(tuple(f" {word}" for word in self.words), none, none, ~none, none)


@pytest.fixture(scope="module")
def taxonomy(tmp_path_factory) -> Taxonomy:
    folder = os.environ.get("STRATA_TEST_WORDNET")
    try:
        database = open_database(Path(folder)) if folder else find_database()
    except StrataError as error:
        pytest.skip(f"needs the real WordNet: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return read_wordnet(database)


def test_the_notebooks_senses_are_rare_ones_and_its_correlations_are_parts_of_speech(taxonomy):
    tokenizer = WholeWords(taxonomy)
    entries = notebook_entries(taxonomy, tokenizer)  # pyright: ignore[reportArgumentType]
    frequent = {
        word: max(senses, key=lambda sense: (sense.count, -sense.number)).sense
        for word, senses in taxonomy.words.items()
    }
    # spec, BUG D-1: 46 %
    assert np.mean([entry.sense == frequent[entry.lemma] for entry in entries]) == pytest.approx(0.46, abs=0.02)
    group = {"n": 0, "v": 1, "a": 2, "s": 2, "r": 2}
    some = np.random.default_rng(0).choice(len(entries), 5000, replace=False)
    senses = [entries[place].sense for place in some]
    kinds = torch.tensor([group[taxonomy.pos[sense]] for sense in senses])
    assert (kinds == 0).double().mean().item() == pytest.approx(0.55, abs=0.03)
    one_hot = torch.eye(3, dtype=torch.float64)[kinds]
    library = torch.from_numpy(path_distances(taxonomy, senses, artificial_root=True))
    sums = pair_sums(one_hot, library)
    # spec D4: 0.26
    assert jackknife(sums, correlation_with(1 / (1 + sums.distances))).value == pytest.approx(0.26, abs=0.05)
    nouns = (kinds == 0).nonzero().flatten()
    sums = pair_sums(one_hot[nouns], library[nouns][:, nouns])
    assert np.isnan(jackknife(sums, correlation_with(1 / (1 + sums.distances))).value)


def test_ours_are_nouns_in_their_most_frequent_sense(taxonomy):
    tokenizer = WholeWords(taxonomy)
    found = match_words(taxonomy, tokenizer.table(), tokenizer)  # pyright: ignore[reportArgumentType]
    names = {word.text: taxonomy.names[word.senses[0]] for word in found.words}
    expected = {"time": "time.n.01", "house": "house.n.01", "water": "water.n.01", "dog": "dog.n.01", "man": "man.n.01"}
    assert {word: names[word] for word in expected} == expected
    assert {taxonomy.pos[word.senses[0]] for word in found.words} == {"n"}
    assert len(found.words) > 5000
