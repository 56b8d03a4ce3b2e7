"""Distances in WordNet of all pairs at once against NLTK's calls pair by pair, on the WordNet of this machine.

CPU time of one process; every value that is compared must be equal, or the benchmark fails. NLTK's synsets are read
before its clock starts. NLTK is called 500,000 times for path similarity (a minute or two); where more pairs are timed
than compared, its time is that of a call, as often as there are pairs.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nltk
import numpy as np
from rich.console import Console
from rich.table import Table

from src.geometry.lexicon.database import find_database
from src.geometry.lexicon.distances import path_distances, wu_palmer
from src.geometry.lexicon.sources import read_taxonomy
from tests.fixtures.nltk_wordnet import PLACE, NltkSynsets, copy_for_nltk

PAIRS = 500_000
FEW_WORDS, MANY_WORDS = 3_000, 9_050


def measure(console: Console) -> None:
    """Print the tables. Raises StrataError without WordNet."""
    database = find_database()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        copy_for_nltk(database, data)
        nltk.data.path.insert(0, folder)
        console.print(_distances(NltkSynsets(data)))
        console.print(_reading(data))


def _distances(synsets: NltkSynsets) -> Table:
    taxonomy = read_taxonomy("wordnet")
    draws = np.random.default_rng(42)
    nouns = np.flatnonzero(np.array(taxonomy.pos) == "n")
    few, many = (draws.choice(nouns, count, replace=False) for count in (FEW_WORDS, MANY_WORDS))
    pairs = draws.integers(0, FEW_WORDS, (2, PAIRS))
    theirs = [synsets[sense] for sense in few]
    for synset in theirs:
        synset.hypernym_distances()  # reads the synsets above

    def nltk_calls(method: str, count: int) -> tuple[float, np.ndarray]:
        calls = [(getattr(theirs[i], method), theirs[j]) for i, j in pairs[:, :count].T]
        return _seconds(lambda: np.array([call(other) for call, other in calls], float))

    table = Table(title="seconds of CPU time, WordNet's nouns")
    for column in ("", "pairs", "NLTK", "Strata", "times", "compared"):
        table.add_column(column, justify="right" if column else "left")

    def row(name: str, n: int, theirs: float, ours: float, compared: int) -> None:
        table.add_row(
            name,
            f"{n:,}",
            f"{theirs:.1f}",
            f"{ours:.2f}",
            f"{theirs / ours:,.0f}",
            f"{compared:,} equal" if compared else "",
        )

    path_time, path = nltk_calls("path_similarity", PAIRS)
    seconds, found = _seconds(lambda: 1 / (1.0 + path_distances(taxonomy, few)[pairs[0], pairs[1]]))
    _require_equal(found, path)
    row(f"path, of {FEW_WORDS:,} words", PAIRS, path_time, seconds, PAIRS)
    seconds, _ = _seconds(lambda: path_distances(taxonomy, many))
    n = MANY_WORDS * (MANY_WORDS - 1) // 2
    row(f"path, of {MANY_WORDS:,} words", n, path_time / PAIRS * n, seconds, 0)
    fewer = PAIRS // 20
    palmer_time, palmer = nltk_calls("wup_similarity", fewer)
    seconds, found = _seconds(lambda: wu_palmer(taxonomy, few))
    _require_equal(found[pairs[0, :fewer], pairs[1, :fewer]], palmer.astype(np.float32))
    n = FEW_WORDS * (FEW_WORDS - 1) // 2
    row(f"Wu-Palmer, of {FEW_WORDS:,} words", n, palmer_time / fewer * n, seconds, fewer)
    return table


def _reading(data: Path) -> Table:
    table = Table(title="reading WordNet, each in a process of its own")
    for column in ("", "CPU seconds", "MB at most", "MB before"):
        table.add_column(column, justify="right" if column else "left")
    theirs = f"""
import nltk, warnings
from nltk.corpus.reader.wordnet import WordNetCorpusReader
warnings.simplefilter("ignore")
nltk.data.path.insert(0, {str(data)!r})
"""
    ours = "from src.geometry.lexicon.sources import read_taxonomy"
    root = f"nltk.data.FileSystemPathPointer({str(data / PLACE)!r})"
    with tempfile.TemporaryDirectory() as cache:
        for name, imports, work in (
            ("NLTK, all synsets", theirs, f"kept = list(WordNetCorpusReader({root}, None).all_synsets())"),
            ("Strata, for the first time", ours, "kept = read_taxonomy('wordnet')"),
            ("Strata, from its cache", ours, "kept = read_taxonomy('wordnet')"),
        ):
            command = [sys.executable, "-c", _TIMED.format(imports=imports, work=work)]
            environment = os.environ | {"XDG_CACHE_HOME": cache}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            seconds, peak, before = done.stdout.split()
            table.add_row(name, f"{float(seconds):.2f}", peak, before)
    return table


# ru_maxrss would begin at what the process that started this one held
_TIMED = """
import re, time
from pathlib import Path
peak = lambda: int(re.search("VmHWM:.*?([0-9]+) kB", Path("/proc/self/status").read_text())[1]) // 1024
{imports}
before, start = peak(), time.process_time()
{work}
print(time.process_time() - start, peak(), before)
"""


def _seconds(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def _require_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    if not np.array_equal(ours, theirs):
        raise SystemExit(f"{(ours != theirs).sum()} of {len(ours)} similarities are not NLTK's")
