"""Everything that is measured of words: each representation at each layer, tested together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from src.geometry.lexicon.taxonomy import Taxonomy
from src.geometry.words.classes import Clustering, cluster_words, word_classes
from src.geometry.words.correlations import Correlations, correlate
from src.geometry.words.cosines import Transform, unit_rows
from src.geometry.words.hypernyms import HypernymDecay, hypernym_decay, hypernym_pairs
from src.geometry.words.mantel import CosineTest, MantelTests, mantel_tests
from src.geometry.words.simultaneous import simultaneous_reach


@dataclass(frozen=True)
class ProfileSettings:
    """How words are measured: the keys of LexiconConfig of the same names, and the seed of the permutations."""

    transform: Transform
    permutations: int
    class_permutations: int
    min_class: int
    neighbours: int
    seed: int


@dataclass(frozen=True, eq=False)
class WordRows:
    """One representation of words at one layer.

    layer: None outside of layers (embedding rows). words: which of the words the rows are of. by_sense: words of the
    same sense have the same row (it comes from the sense's definition), so their pairs say nothing.
    """

    representation: str
    layer: int | None
    words: Int64[np.ndarray, "row"]
    rows: Float[Tensor, "row d"]
    by_sense: bool = False


@dataclass(frozen=True, eq=False)
class Chance:
    """A correlation when words change places: 95 % of the draws, and p alone and over all tests (two-sided)."""

    low: float
    high: float
    p: float
    adjusted: float


@dataclass(frozen=True, eq=False)
class WordProfile:
    """What was measured of one representation at one layer. clustering, decay: None without classes, or kinds.

    pearson_reach: standard errors that intervals of the Pearson correlation reach if all representations and layers are
    to lie in theirs together (95 %): for one that was chosen for its size.
    """

    representation: str
    layer: int | None
    words: Int64[np.ndarray, "row"]
    correlations: Correlations
    pearson_reach: float
    pearson_chance: Chance
    spearman_chance: Chance
    clustering: Clustering | None
    classes: tuple[str, ...]
    decay: HypernymDecay | None


@dataclass(frozen=True, eq=False)
class _Measured:
    rows: WordRows
    units: Float[Tensor, "row d"]
    profile: WordProfile


_NO_CHANCE = Chance(np.nan, np.nan, np.nan, np.nan)


def profile_words(
    all_rows: Sequence[WordRows],
    taxonomy: Taxonomy,
    senses: Sequence[int],
    distances: UInt8[np.ndarray, "word word"],
    log_frequency: Float64[np.ndarray, "word"] | None,
    settings: ProfileSettings,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> list[WordProfile]:
    """Correlations with their chance, class clustering and hypernym decay of every representation at every layer.

    All tests over the same words share their permutations, and p is corrected over all of them by the largest
    deviation (maxT); where representations are of different words, also for the number of such sets (Bonferroni).

    Args:
        all_rows: what is measured.
        taxonomy: of the senses.
        senses: of the words, for classes and hypernyms.
        distances: between all words.
        log_frequency: of the words, which the partial correlation holds fixed beside the norm; None if not known.
        settings: how.
        device: where.
        advance: is told the rows done, each of `all_rows` 3 times.
    """
    families: dict[bytes, list[WordRows]] = {}
    for rows in all_rows:
        families.setdefault(rows.words.tobytes(), []).append(rows)
    found: dict[int, WordProfile] = {}
    for family in families.values():
        words = family[0].words
        between = torch.from_numpy(distances[np.ix_(words, words)]).to(device)
        measured = _measure(
            family, taxonomy, [senses[word] for word in words], between, log_frequency, settings, advance
        )
        for each, profile in zip(family, _tested(measured, between, len(families), settings, advance), strict=True):
            found[id(each)] = profile
    profiles = [found[id(rows)] for rows in all_rows]
    reach = simultaneous_reach([_influence(each, len(distances)) for each in profiles], settings.seed)
    return [replace(each, pearson_reach=reach) for each in profiles]


def _influence(profile: WordProfile, n_words: int) -> Float64[np.ndarray, "word"]:
    left = profile.correlations.pearson.left
    assert left is not None
    influence = np.zeros(n_words)
    influence[profile.words] = left - left.mean()
    return influence


def _measure(
    family: Sequence[WordRows],
    taxonomy: Taxonomy,
    senses: Sequence[int],
    between: UInt8[Tensor, "row row"],
    log_frequency: Float64[np.ndarray, "word"] | None,
    settings: ProfileSettings,
    advance: Callable[[int], None],
) -> list[_Measured]:
    pairs = hypernym_pairs(taxonomy, senses)
    classes = word_classes([taxonomy.classes[sense] for sense in senses], settings.min_class)
    measured = []
    for rows in family:
        units = unit_rows(rows.rows, settings.transform, between.device)
        norms = rows.rows.double().norm(dim=1).clamp_min(1e-30).log().cpu().numpy()
        properties = [norms, *([] if log_frequency is None else [log_frequency[rows.words]])]
        profile = WordProfile(
            rows.representation,
            rows.layer,
            rows.words,
            correlate(units, between, properties, lowest=int(rows.by_sense)),
            np.nan,
            _NO_CHANCE,
            _NO_CHANCE,
            cluster_words(units, classes, settings.neighbours, settings.class_permutations, settings.seed),
            classes.names,
            hypernym_decay(units, pairs, settings.class_permutations, settings.seed),
        )
        measured.append(_Measured(rows, units, profile))
        advance(len(units))
    return measured


def _tested(
    measured: Sequence[_Measured],
    between: UInt8[Tensor, "row row"],
    n_families: int,
    settings: ProfileSettings,
    advance: Callable[[int], None],
) -> list[WordProfile]:
    """The profiles with what chance gives."""
    pearson, spearman = {}, {}
    for by_sense in (False, True):
        some = [place for place, each in enumerate(measured) if each.rows.by_sense is by_sense]
        if not some:
            continue
        taxonomic = measured[some[0]].profile.correlations
        cosines = [CosineTest(measured[place].units) for place in some]
        pearson |= _by_place(
            some,
            mantel_tests(
                cosines, between, taxonomic.similarity_of_distance, settings.permutations, settings.seed, advance
            ),
        )
        ranked = [CosineTest(measured[place].units, measured[place].profile.correlations.rank_of_bin) for place in some]
        spearman |= _by_place(
            some,
            mantel_tests(ranked, between, taxonomic.rank_of_distance, settings.permutations, settings.seed, advance),
        )
    chances = [_chances(tests, len(measured), n_families) for tests in (pearson, spearman)]
    return [
        replace(each.profile, pearson_chance=chances[0][place], spearman_chance=chances[1][place])
        for place, each in enumerate(measured)
    ]


def _by_place(places: Sequence[int], tests: MantelTests) -> dict[int, tuple[float, np.ndarray]]:
    return {place: (float(tests.observed[i]), tests.drawn[:, i]) for i, place in enumerate(places)}


def _chances(tests: dict[int, tuple[float, np.ndarray]], n: int, n_families: int) -> list[Chance]:
    # the same permutations everywhere: the same seed, over the same words
    together = MantelTests(
        np.array([tests[place][0] for place in range(n)]), np.stack([tests[place][1] for place in range(n)], 1)
    )
    low, high = together.band()
    adjusted = np.minimum(1, together.adjusted * n_families)
    return [Chance(*map(float, each)) for each in zip(low, high, together.p, adjusted, strict=True)]
