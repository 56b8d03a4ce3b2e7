"""What the published notebook computes of words and WordNet, its mistakes included, to compare with its numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from scipy import stats
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.errors import NotApplicableError
from src.geometry.lexicon.taxonomy import UNCONNECTED, Taxonomy

SEED = 42
PAIR_TOKENS, PAIRS = 3_000, 500_000
SEEDS, SEED_TOKENS, SEED_PAIRS, SIMPLICES, SEED_CHAINS = 50, 2_000, 200_000, 500, 1_000
CHAIN_INDICES = (1, 3, 5)
# of path similarity; each closed below and open above, but for the last one of the first variant: (0, 0.05]
FIRST_BANDS = ((0.9, 1.0), (0.5, 0.9), (0.25, 0.5), (0.1, 0.25), (0.05, 0.1), (0.0, 0.05))
SECOND_BANDS = ((0.5, 1.0), (0.25, 0.5), (0.1, 0.25), (0.05, 0.1), (0.0, 0.05))
_POS_ORDER = {"a": 0, "s": 0, "r": 1, "n": 2, "v": 3}
_FEWEST_LETTERS = 11
_MOST_STEPS, _FEWEST_LINKS, _DEEPEST = 10, 3, 8
_CLASS_MEMBERS, _CLASS_LIMIT = 10, 200

Rows = Mapping[str, Float[np.ndarray, "word d"]]


@dataclass(frozen=True)
class Entry:
    """A token and the first synset in the order of the database that has a lemma of that token."""

    lemma: str
    sense: int
    token_id: int
    definition: str


def notebook_entries(taxonomy: Taxonomy, tokenizer: PreTrainedTokenizerBase) -> list[Entry]:
    """Walk all synsets: adjectives, adverbs, nouns, verbs, in the order of the files; the first match of a token wins.

    Mistakes (BUG D-1, D-2): the sense is often a rare one, by preference an adjective, and many tokens share one.

    Raises:
        NotApplicableError: fewer than 10 lemmas are single tokens.
    """
    lemmas = [
        (sense, lemma)
        for sense in sorted(range(len(taxonomy.pos)), key=lambda sense: _POS_ORDER[taxonomy.pos[sense]])
        if len(taxonomy.definitions[sense]) >= _FEWEST_LETTERS
        for lemma in taxonomy.lemmas[sense]
    ]
    encoded = tokenizer([lemma for _, lemma in lemmas], add_special_tokens=False)["input_ids"] if lemmas else []
    entries: dict[int, Entry] = {}
    for (sense, lemma), ids in zip(lemmas, encoded, strict=True):
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            entries.setdefault(ids[0], Entry(lemma, sense, ids[0], taxonomy.definitions[sense]))
    if len(entries) < _CLASS_MEMBERS:
        raise NotApplicableError(
            f"compat=notebook: {len(entries)} lemmas of {taxonomy.source} with a definition are single tokens"
        )
    return list(entries.values())


def notebook_pairs(n: int, n_tokens: int, n_pairs: int, rng: np.random.Generator) -> Int64[np.ndarray, "pair two"]:
    """Ordered pairs with replacement among some of the words, self pairs removed: 5 % come twice (spec D3)."""
    chosen = rng.choice(n, min(n_tokens, n), replace=False)
    pairs = chosen[rng.integers(0, len(chosen), (n_pairs, 2))]
    return pairs[pairs[:, 0] != pairs[:, 1]]


def cosines_of(rows: Float[np.ndarray, "word d"], pairs: Int64[np.ndarray, "pair two"]) -> Float64[np.ndarray, "pair"]:
    """Of pairs, from one product of the rows that occur."""
    used, place = np.unique(pairs, return_inverse=True)
    chosen = rows[used].astype(np.float64)
    units = chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-300)
    first, second = place.reshape(pairs.shape).T
    return (units @ units.T)[first, second]


def notebook_correlations(
    rows: Rows, distances: UInt8[np.ndarray, "word word"], pos: Sequence[str], rng: np.random.Generator
) -> dict[str, float]:
    """Pearson and Spearman of sampled pairs, with path similarity over all parts of speech, in library mode.

    distances: with the artificial root (BUG D-3). Beside them what the parts of speech alone give: the correlation of
    similarity with "both are modifiers", and Pearson over pairs of nouns alone.
    """
    pairs = notebook_pairs(len(distances), PAIR_TOKENS, PAIRS, rng)
    distance = distances[pairs[:, 0], pairs[:, 1]]
    pairs, distance = pairs[distance != UNCONNECTED], distance[distance != UNCONNECTED]
    similar = 1 / (1 + distance.astype(np.float64))
    parts = np.array(list(pos))[pairs]
    modifier, nouns = np.isin(parts, ["a", "s", "r"]).all(1), (parts == "n").all(1)
    found = {"n_pairs": len(pairs), "modifier_pairs_pearson": _pearson(np.asarray(modifier), similar)}
    for name, values in rows.items():
        cosine = cosines_of(values, pairs)
        found[f"{name}_pearson"] = _pearson(cosine, similar)
        found[f"{name}_spearman"] = _spearman(cosine, similar)
        found[f"{name}_pearson_nouns"] = _pearson(cosine[nouns], similar[nouns])
        found |= {f"{name}_{key}": value for key, value in _gradient(cosine, similar).items()}
    return found


def static_against_contextual(
    static: Float[np.ndarray, "word d"], contextual: Float[np.ndarray, "word d"]
) -> dict[str, float]:
    """Cosine of each token's two representations: two coordinate systems, so it says little."""
    if static.shape != contextual.shape:
        return {}
    both = np.concatenate([static, contextual])
    cosines = _row_cosines(both, np.stack([np.arange(len(static)), np.arange(len(static)) + len(static)], 1))
    return {"static_contextual_cosine_mean": float(cosines.mean()), "static_contextual_cosine_sd": float(cosines.std())}


def notebook_bands(
    rows: Rows, distances: UInt8[np.ndarray, "word word"], rng: np.random.Generator
) -> list[dict[str, float | str | int]]:
    """Mean cosine by band of similarity, in both variants; the first miscounts synonyms and distance 19 (BUG D-4)."""
    pairs = notebook_pairs(len(distances), PAIR_TOKENS, PAIRS, rng)
    distance = distances[pairs[:, 0], pairs[:, 1]]
    pairs, distance = pairs[distance != UNCONNECTED], distance[distance != UNCONNECTED]
    similar = 1 / (1 + distance.astype(np.float64))
    cosines = {name: cosines_of(values, pairs) for name, values in rows.items()}
    records = []
    for variant, bands, fewest in ((1, FIRST_BANDS, 10), (2, SECOND_BANDS, 5)):
        for low, high in bands:
            inside = in_band(similar, variant, low, high)
            n = int(inside.sum())
            means = {
                name: float(cosine[inside].mean()) if n >= fewest else math.nan for name, cosine in cosines.items()
            }
            records.append({"variant": variant, "band": f"{low:g} to {high:g}", "n_pairs": n, **means})
    return records


def in_band(similar: Float64[np.ndarray, "pair"], variant: int, low: float, high: float) -> np.ndarray:
    """Which similarities the notebook counts in a band."""
    if variant == 1 and low == 0:
        return (similar > low) & (similar <= high)
    if variant == 2 and high == 1:
        return (similar >= low) & (similar <= high)
    return (similar >= low) & (similar < high)


def notebook_chains(taxonomy: Taxonomy, senses: Sequence[int]) -> list[list[int]]:
    """From each distinct sense up by the first parent, 10 steps at most; only matched senses are kept (BUG D-5).

    Returns chains of at least 3, as indices of the first word of each sense. The index in such a chain is called depth
    there, and is no number of steps. (Here the parent is the first in the file; there it changes from run to run, BUG
    D-6.)
    """
    first: dict[int, int] = {}
    for word, sense in enumerate(senses):
        first.setdefault(sense, word)
    chains = []
    for sense in first:
        chain, above = [sense], sense
        for _ in range(_MOST_STEPS):
            parents = taxonomy.parents(above)
            if not len(parents):
                break
            above = int(parents[0])
            if above in first:
                chain.append(above)
        if len(chain) >= _FEWEST_LINKS:
            chains.append([first[each] for each in chain])
    return chains


def chain_cosines(rows: Float[np.ndarray, "word d"], chains: Sequence[Sequence[int]]) -> dict[int, tuple[int, float]]:
    """Of the first of each chain with the one at an index: how many chains are so long, and the mean."""
    longest = max(map(len, chains), default=0)
    found = {}
    for index in range(1, min(_DEEPEST, longest)):
        pairs = np.array([(chain[0], chain[index]) for chain in chains if len(chain) > index])
        found[index] = (len(pairs), float(_row_cosines(rows, pairs).mean()))
    return found


def _row_cosines(rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    first, second = (rows[pairs[:, side]].astype(np.float64) for side in (0, 1))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / np.maximum(norms, 1e-300)


def notebook_classes(rows: Rows, classes: Sequence[str]) -> list[dict[str, float | str | int]]:
    """Mean cosine within each class of at least 10 words, over its first 200, and nothing taken away (spec D11)."""
    records = []
    for name in dict.fromkeys(classes):
        members = np.flatnonzero(np.array(classes) == name)
        if name and len(members) >= _CLASS_MEMBERS:
            pairs = np.stack(np.triu_indices(min(len(members), _CLASS_LIMIT), 1), 1)
            means = {key: float(cosines_of(values, members[pairs]).mean()) for key, values in rows.items()}
            records.append({"class": name, "n": len(members), **means})
    return sorted(records, key=lambda record: -int(record["n"]))


def notebook_seeds(
    rows: Rows,
    distances: UInt8[np.ndarray, "word word"],
    chains: Sequence[Sequence[int]],
    seeds: int,
) -> list[dict[str, float]]:
    """One record for each seed: correlations, bands, simplices and chains of a part of the words (spec D12).

    It measures how much a part of the words differs from another part, for one model and one set of words.
    """
    records = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        n = len(distances)
        pairs = notebook_pairs(n, SEED_TOKENS, SEED_PAIRS, rng)
        distance = distances[pairs[:, 0], pairs[:, 1]]
        pairs, distance = pairs[distance != UNCONNECTED], distance[distance != UNCONNECTED]
        similar = 1 / (1 + distance.astype(np.float64))
        some = rng.choice(n, min(SEED_TOKENS, n), replace=False)
        simplices = np.stack([rng.choice(some, 5, replace=False) for _ in range(SIMPLICES)])
        drawn = rng.choice(len(chains), min(SEED_CHAINS, len(chains)), replace=False) if chains else []
        record: dict[str, float] = {"seed": seed}
        for name, values in rows.items():
            cosine = cosines_of(values, pairs)
            volumes = _volumes(values[simplices])
            volumes = volumes[volumes > 0]
            record[f"{name}_pearson"] = _pearson(cosine, similar)
            record[f"{name}_spearman"] = _spearman(cosine, similar)
            record |= {f"{name}_{key}": value for key, value in _gradient(cosine, similar).items()}
            record[f"{name}_simplex_cv"] = float(volumes.std() / volumes.mean()) if len(volumes) else math.nan
            record[f"{name}_simplex_mean"] = float(volumes.mean()) if len(volumes) else math.nan
            by_index = chain_cosines(values, [chains[place] for place in drawn])
            ends = {index: by_index.get(index, (0, math.nan))[1] for index in CHAIN_INDICES}
            record |= {f"{name}_chain_{index}": value for index, value in ends.items()}
            record[f"{name}_decay_1_to_5"] = ends[1] - ends[5]
        records.append(record)
    return records


def seed_summary(records: Sequence[Mapping[str, float]]) -> list[dict[str, float | str]]:
    """Mean, standard deviation, least and largest of each number over the seeds, and its variation in percent."""
    rows = []
    for key in records[0]:
        values = np.array([record[key] for record in records])
        values = values[np.isfinite(values)]
        if key != "seed" and len(values):
            mean, sd = float(values.mean()), float(values.std())
            percent = 100 * sd / abs(mean) if mean else math.nan
            ends = {"least": float(values.min()), "largest": float(values.max())}
            rows.append({"quantity": key, "mean": mean, "sd": sd, **ends, "sd_percent": percent})
    return rows


def _gradient(cosine: np.ndarray, similar: np.ndarray) -> dict[str, float]:
    high, low = cosine[similar >= 0.25], cosine[similar < 0.1]
    means = [float(values.mean()) if len(values) else math.nan for values in (high, low)]
    return {"high": means[0], "low": means[1], "gradient": means[0] - means[1]}


def _varies(*values: np.ndarray) -> bool:
    return all(len(each) > 1 and np.ptp(each) > 1e-12 for each in values)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(np.corrcoef(x, y)[0, 1]) if _varies(x, y) else math.nan


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def _volumes(vertices: Float[np.ndarray, "simplex vertex d"]) -> Float64[np.ndarray, "simplex"]:
    edges = torch.from_numpy(vertices[:, 1:].astype(np.float64) - vertices[:, :1])
    return (torch.linalg.det(edges @ edges.mT).clamp_min(0).sqrt() / math.factorial(edges.shape[1])).numpy()
