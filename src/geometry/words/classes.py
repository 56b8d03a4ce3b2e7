"""How words of one class (WordNet's lexicographer files) lie together (spec D11)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from src.geometry.words.pair_sums import row_blocks


@dataclass(frozen=True, eq=False)
class WordClasses:
    """Classes of words. names: with enough members, the largest first. label: of each word, -1 for none of them."""

    names: tuple[str, ...]
    label: Int64[np.ndarray, "word"]

    @property
    def kept(self) -> Int64[np.ndarray, "kept"]:
        """The words that are in a class."""
        return np.flatnonzero(self.label >= 0)


def word_classes(class_of_word: Sequence[str], fewest: int) -> WordClasses:
    """The classes that at least so many words are in."""
    names, label, count = np.unique(np.array(class_of_word, str), return_inverse=True, return_counts=True)
    order = [place for place in np.argsort(-count, kind="stable") if count[place] >= fewest and names[place]]
    new = np.full(len(names), -1)
    new[order] = np.arange(len(order))
    return WordClasses(tuple(str(names[place]) for place in order), new[label])


@dataclass(frozen=True, eq=False)
class Clustering:
    """Of all words that are in a class, and of each class.

    n, within: of each class its members and their mean cosine with each other. lift: the same about the mean cosine of
    all words in classes; null_sd: its standard deviation when labels are permuted, and p: permuted ones as large.
    mean_within, mean_between: over pairs of words of the same class, and of different ones. silhouette: mean over words
    (Rousseeuw 1987), with 1 - cosine as the distance. purity: the share of a word's nearest neighbours that are of its
    class; expected_purity: with labels permuted. The p-values are of permuted labels.
    """

    n: Int64[np.ndarray, "class"]
    within: Float64[np.ndarray, "class"]
    lift: Float64[np.ndarray, "class"]
    null_sd: Float64[np.ndarray, "class"]
    p: Float64[np.ndarray, "class"]
    mean_within: float
    mean_between: float
    silhouette: float
    silhouette_p: float
    purity: float
    expected_purity: float
    purity_p: float


def cluster_words(
    units: Float[Tensor, "word d"], classes: WordClasses, neighbours: int, permutations: int, seed: int
) -> Clustering | None:
    """How words of a class lie together, exactly over all pairs, from sums of unit rows. None if there are not 2.

    Args:
        units: rows of length 1, of all words; take away the mean first, or what all words share reads as clustering.
        classes: of the words.
        neighbours: nearest ones that purity is taken over.
        permutations: of the labels.
        seed: of the permutations.
    """
    if len(classes.names) < 2:
        return None
    rows = units[torch.from_numpy(classes.kept).to(units.device)]
    label = classes.label[classes.kept]
    n = np.bincount(label)
    nearest = nearest_neighbours(rows, min(neighbours, len(rows) - 1))
    own = rows.square().sum(-1)
    overall = _mean_cosine(rows, own)
    within, silhouette, purity = _measures(rows, own, nearest, label)
    rng = np.random.default_rng([seed, 3])
    drawn = [_measures(rows, own, nearest, rng.permutation(label)) for _ in range(permutations)]
    null_within = np.stack([each[0] for each in drawn])

    def p_of(value: np.ndarray | float, null: np.ndarray) -> np.ndarray:
        return (1 + (null >= np.asarray(value) - 1e-12).sum(0)) / (1 + permutations)

    pairs = n * (n - 1)
    same = float((within * pairs).sum() / pairs.sum())
    everyone = len(rows) * (len(rows) - 1)
    between = (overall * everyone - (within * pairs).sum()) / (everyone - pairs.sum())
    return Clustering(
        n,
        within,
        within - overall,
        null_within.std(0),
        p_of(within, null_within),
        same,
        float(between),
        silhouette,
        float(p_of(silhouette, np.array([each[1] for each in drawn]))),
        purity,
        float(pairs.sum() / everyone),
        float(p_of(purity, np.array([each[2] for each in drawn]))),
    )


def _mean_cosine(rows: Float[Tensor, "word d"], own: Float[Tensor, "word"]) -> float:
    n = len(rows)
    return float((rows.sum(0).square().sum() - own.sum()) / (n * (n - 1)))


def _measures(
    rows: Float[Tensor, "word d"],
    own: Float[Tensor, "word"],
    nearest: Int64[np.ndarray, "word neighbour"],
    label: Int64[np.ndarray, "word"],
) -> tuple[Float64[np.ndarray, "class"], float, float]:
    """Mean cosine within each class, silhouette, purity."""
    index = torch.from_numpy(label).to(rows.device)
    n = torch.bincount(index).to(rows.dtype)
    sums = torch.zeros(len(n), rows.shape[1], dtype=rows.dtype, device=rows.device).index_add_(0, index, rows)
    own_sums = torch.zeros_like(n).index_add_(0, index, own)
    within = (sums.square().sum(-1) - own_sums) / (n * (n - 1))
    to_class = rows @ sums.T
    mine = index[:, None]
    inside = 1 - (to_class.gather(1, mine)[:, 0] - own) / (n[index] - 1)
    outside = (1 - to_class / n).scatter(1, mine, torch.inf).amin(1)
    larger = torch.maximum(inside, outside)
    score = torch.where(larger > 0, (outside - inside) / larger.clamp_min(1e-300), torch.zeros_like(larger))
    purity = (label[nearest] == label[:, None]).mean()
    return within.cpu().double().numpy(), float(score.mean()), float(purity)


def nearest_neighbours(rows: Float[Tensor, "word d"], k: int) -> Int64[np.ndarray, "word neighbour"]:
    """The k rows with the largest cosine for each row, itself left out."""
    found = []
    for start, stop in row_blocks(len(rows)):
        cosines = rows[start:stop] @ rows.T
        cosines[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
        found.append(cosines.topk(k, dim=1).indices.cpu())
    return torch.cat(found).numpy()
