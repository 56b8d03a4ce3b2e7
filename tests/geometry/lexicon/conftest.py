import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nltk
import pytest
from nltk.corpus.reader.wordnet import Synset, WordNetCorpusReader

from src.geometry.lexicon.database import open_database
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.lexicon.wordnet import read_wordnet
from tests.fixtures.wordnet_files import make_synsets, write_wordnet


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@dataclass(frozen=True)
class TwoReaders:
    """One database as we read it and as NLTK does, whose synsets have the same numbers."""

    folder: Path
    taxonomy: Taxonomy
    synsets: list[Synset]


@pytest.fixture(scope="session")
def nltk_synsets() -> Iterator[Callable[[Path], list[Synset]]]:
    """All synsets of corpora/wordnet in a folder, as NLTK reads them."""
    with pytest.MonkeyPatch.context() as patch:

        def read(folder: Path) -> list[Synset]:
            # it opens nothing that its data path does not hold
            patch.setattr(nltk.data, "path", [str(folder), *nltk.data.path])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                root = nltk.data.FileSystemPathPointer(str(folder / "corpora" / "wordnet"))
                return list(WordNetCorpusReader(root, None).all_synsets())

        yield read


@pytest.fixture(scope="session")
def made_wordnet(tmp_path_factory, nltk_synsets) -> TwoReaders:
    root = tmp_path_factory.mktemp("nltk_data")
    folder = write_wordnet(root / "corpora" / "wordnet", make_synsets())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        taxonomy = read_wordnet(open_database(folder))
    return TwoReaders(folder, taxonomy, nltk_synsets(root))
