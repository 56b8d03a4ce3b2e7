"""Do words of a category stand together? Each category against random sets that are matched to it (spec A7, A8)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int, Int64
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.activations.products import exact_products
from src.geometry.directions import unit_rows
from src.geometry.embedding.moments import pair_mean
from src.geometry.embedding.rows import Rows
from src.models.token_table import TokenTable, token_of_form

# categories with fewer words are left out
FEWEST_WORDS = 3
# candidates for each word of a matched set: at least so many, and so many times the size of the category
_LEAST_CANDIDATES = 50
_CANDIDATES_PER_WORD = 3


@dataclass(frozen=True)
class MatchedCategory:
    """The words of a category that are single tokens."""

    name: str
    words: tuple[str, ...]
    tokens: tuple[int, ...]


def matched_categories(
    tokenizer: PreTrainedTokenizerBase, categories: Mapping[str, Sequence[str]]
) -> list[MatchedCategory]:
    """Find words as they stand inside a text (with a space in front); categories with fewer than 3 are left out.

    Tokens are found by encoding, never by id (spec, BUG A-2). A token of two words belongs to the first.
    """
    taken: set[int] = set()
    matched = []
    for name, words in categories.items():
        found: dict[int, str] = {}
        for word in words:
            token = token_of_form(tokenizer, f" {word}")
            if token is not None and token not in taken:
                taken.add(token)
                found[token] = word
        if len(found) >= FEWEST_WORDS:
            matched.append(MatchedCategory(name, tuple(found.values()), tuple(found)))
    return matched


@dataclass(frozen=True)
class CategoryStatistics:
    """cosine: mean over all pairs of the category's words. lift: above the mean over all pairs of tokens.

    matched, matched_std, matched_low, matched_high: mean, spread and middle 95 % of the same over random sets of as
    many words of like norm and rank. z: of `cosine` among them. p: one-sided, (1 + count) / (1 + draws). centred_*: of
    rows less the mean of all rows; centred_z, centred_p: among the same sets. norm, matched_norm: mean norms. NaN
    where the vocabulary has too few other words.
    """

    name: str
    n_words: int
    cosine: float
    lift: float
    matched: float
    matched_std: float
    matched_low: float
    matched_high: float
    z: float
    p: float
    centred_cosine: float
    centred_lift: float
    centred_z: float
    centred_p: float
    norm: float
    matched_norm: float


def words_like(tokens: TokenTable) -> Int64[np.ndarray, "token"]:
    """Ids that matched sets are drawn from: tokens that begin a word and are letters."""
    letters = np.array([text.strip().isalpha() for text in tokens.texts], bool)
    return np.flatnonzero(tokens.initial & letters & ~tokens.special & ~tokens.padding)


def category_statistics(
    rows: Rows,
    norms: Float64[np.ndarray, "row"],
    category: MatchedCategory,
    pool: Int[np.ndarray, "candidate"],
    mean: Float64[Tensor, "d_model"],
    overall: tuple[float, float],
    n_draws: int,
    rng: np.random.Generator,
) -> CategoryStatistics:
    """One category.

    norms: of all rows of the table, by id. pool: ids that sets are drawn from; ids stand for frequency, since
    vocabularies are mostly in that order. mean: of all rows that count. overall: mean cosine of all pairs of rows, and
    of all pairs of centred rows.
    """
    ids = np.array(category.tokens)
    block = rows.take(ids)
    own = _mean_cosine(block)
    centred = _mean_cosine(block - mean)
    others = np.setdiff1d(pool, ids)
    matched = matched_std = low = high = z = p = centred_z = centred_p = matched_norm = math.nan
    if len(others) >= 2 * len(ids):
        sets = matched_sets(norms, ids, others, n_draws, rng)
        null, centred_null = _mean_cosines(rows, sets), _mean_cosines(rows, sets, mean)
        matched, matched_std, matched_norm = float(null.mean()), float(null.std()), float(norms[sets].mean())
        low, high = np.percentile(null, (2.5, 97.5)).tolist()
        z, centred_z = _z(own, null), _z(centred, centred_null)
        p, centred_p = _p(own, null), _p(centred, centred_null)
    return CategoryStatistics(
        name=category.name,
        n_words=len(ids),
        cosine=own,
        lift=own - overall[0],
        matched=matched,
        matched_std=matched_std,
        matched_low=low,
        matched_high=high,
        z=z,
        p=p,
        centred_cosine=centred,
        centred_lift=centred - overall[1],
        centred_z=centred_z,
        centred_p=centred_p,
        norm=float(norms[ids].mean()),
        matched_norm=matched_norm,
    )


def matched_sets(
    norms: Float64[np.ndarray, "row"],
    ids: Int[np.ndarray, "word"],
    others: Int[np.ndarray, "candidate"],
    n_draws: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "draw word"]:
    """Random sets of other tokens: for each word one of its nearest in ranks of norm and id, none twice in a set.

    Raises ValueError for fewer others than words.
    """
    if len(others) < len(ids):
        raise ValueError(f"{len(others)} tokens give no set of {len(ids)}")
    everyone = np.concatenate([ids, others])
    by_norm, by_id = (np.argsort(np.argsort(values, kind="stable")) for values in (norms[everyone], everyone))
    plane = np.stack([by_norm, by_id], 1) / len(everyone)
    n, k = len(ids), min(len(others), max(_LEAST_CANDIDATES, _CANDIDATES_PER_WORD * len(ids)))
    apart = np.square(plane[:n, None] - plane[None, n:]).sum(-1)
    near = np.argpartition(apart, k - 1, axis=1)[:, :k]
    union, near = np.unique(near, return_inverse=True)
    others, near = others[union], near.reshape(n, k)
    used: Bool[np.ndarray, "draw candidate"] = np.zeros((n_draws, len(others)), bool)
    sets = np.empty((n_draws, n), np.int64)
    draws = np.arange(n_draws)
    # in random order: the first words must not always have the first choice
    for word in rng.permutation(n):
        priority = np.where(used[:, near[word]], -1.0, rng.random((n_draws, k)))
        chosen = near[word][priority.argmax(1)]
        used[draws, chosen] = True
        sets[:, word] = others[chosen]
    return sets


def _z(value: float, null: Float64[np.ndarray, "draw"]) -> float:
    spread = float(null.std())
    return (value - float(null.mean())) / spread if spread > 0 else math.nan


def _p(value: float, null: Float64[np.ndarray, "draw"]) -> float:
    return (1 + int((null >= value).sum())) / (1 + len(null))


def _mean_cosine(block: Float64[Tensor, "word d_model"]) -> float:
    unit = unit_rows(block)
    return pair_mean(unit.sum(0), int(unit.any(dim=1).sum()))


def _mean_cosines(
    rows: Rows, sets: Int64[np.ndarray, "draw word"], centre: Float64[Tensor, "d_model"] | float = 0.0
) -> Float64[np.ndarray, "draw"]:
    ids, places = np.unique(sets, return_inverse=True)
    places = torch.from_numpy(places.reshape(sets.shape))
    unit = unit_rows(rows.take(ids) - centre)
    total = torch.zeros(len(sets), unit.shape[1], dtype=unit.dtype, device=unit.device)
    # rows of zeros are in no pair
    n = torch.zeros(len(sets), dtype=unit.dtype, device=unit.device)
    known = unit.any(dim=1).to(unit.dtype)
    for word in places.T:
        total += unit[word.to(unit.device)]
        n += known[word.to(unit.device)]
    found = (total.square().sum(1) - n) / (n * (n - 1))
    return torch.where(n > 1, found, 0.0).cpu().numpy()


@dataclass(frozen=True, eq=False)
class CategoryPair:
    """Cosines of the categories' mean rows: of the rows as they are, and less the mean of all rows (spec A8)."""

    raw: Float64[np.ndarray, "category category"]
    centred: Float64[np.ndarray, "category category"]


def centroid_cosines(
    rows: Rows, categories: Sequence[MatchedCategory], mean: Float64[Tensor, "d_model"]
) -> CategoryPair:
    """Of all pairs of categories."""
    centroids = torch.stack([rows.take(np.array(category.tokens)).mean(0) for category in categories])
    raw, centred = unit_rows(centroids), unit_rows(centroids - mean)
    return CategoryPair((raw @ raw.T).cpu().numpy(), (centred @ centred.T).cpu().numpy())


@dataclass(frozen=True)
class Purity:
    """Share of words whose nearest word of any category (by centred cosine) is of their own.

    by_chance: of shuffled labels. p: one-sided, from shuffled labels.
    """

    n_words: int
    share: float
    by_chance: float
    p: float


def nearest_purity(
    rows: Rows,
    categories: Sequence[MatchedCategory],
    mean: Float64[Tensor, "d_model"],
    n_draws: int,
    rng: np.random.Generator,
) -> Purity:
    """Over all words of at least two categories."""
    labels = np.repeat(np.arange(len(categories)), [len(category.tokens) for category in categories])
    ids = np.concatenate([category.tokens for category in categories])
    with exact_products():
        unit = unit_rows(rows.take(ids) - mean)
        cosines = unit @ unit.T
    cosines.fill_diagonal_(-math.inf)
    nearest = cosines.argmax(1).cpu().numpy()
    share = float((labels == labels[nearest]).mean())
    shuffled = rng.permuted(np.tile(labels, (n_draws, 1)), axis=1)
    null = (shuffled == shuffled[:, nearest]).mean(1)
    p = (1 + int((null >= share - 1e-12).sum())) / (1 + n_draws)
    return Purity(len(ids), share, float(null.mean()), p)
