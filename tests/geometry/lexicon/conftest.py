from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nltk
import pytest

from src.geometry.lexicon.database import open_database
from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.lexicon.wordnet import read_wordnet
from tests.fixtures.nltk_wordnet import PLACE, NltkSynsets
from tests.fixtures.wordnet_files import make_synsets, write_wordnet


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@dataclass(frozen=True)
class TwoReaders:
    """One database as we read it and as NLTK does."""

    folder: Path
    taxonomy: Taxonomy
    synsets: NltkSynsets


@pytest.fixture(scope="session")
def nltk_synsets() -> Iterator[Callable[[Path], NltkSynsets]]:
    with pytest.MonkeyPatch.context() as patch:

        def read(data: Path) -> NltkSynsets:
            patch.setattr(nltk.data, "path", [str(data), *nltk.data.path])
            return NltkSynsets(data)

        yield read


@pytest.fixture(scope="session")
def made_wordnet(tmp_path_factory, nltk_synsets) -> TwoReaders:
    data = tmp_path_factory.mktemp("nltk_data")
    folder = write_wordnet(data / PLACE, make_synsets())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(data / "cache"))
        taxonomy = read_wordnet(open_database(folder))
    return TwoReaders(folder, taxonomy, nltk_synsets(data))
