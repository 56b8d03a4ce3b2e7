"""Words with an order, in a line or around a circle: are neighbours in the order neighbours in space? (spec A6)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations as all_permutations

import numpy as np
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.geometry.directions import unit_rows
from src.models.token_table import token_of_form

# fewer words have too few orders for any p to be small
FEWEST_WORDS = 4
_BATCH_BYTES = 32 << 20
# cosines of copies of one row differ by rounding, which a correlation would take for an order
_ROUNDING = 1e-12


@dataclass(frozen=True)
class OrderedSet:
    """Words in their order. cycle: the last one stands before the first one."""

    name: str
    words: tuple[str, ...]
    cycle: bool = False


_TO_TWELVE = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_MONTHS = ("January", "February", "March", "April", "May", "June")
_MORE_MONTHS = ("July", "August", "September", "October", "November", "December")
BUILT_IN = (
    OrderedSet("digits", tuple("0123456789")),
    OrderedSet("two-digit numbers", tuple(str(number) for number in range(10, 100))),
    OrderedSet("number words", _TO_TWELVE),
    OrderedSet("hours", _TO_TWELVE, cycle=True),
    OrderedSet("weekdays", ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"), cycle=True),
    OrderedSet("months", (*_MONTHS, *_MORE_MONTHS), cycle=True),
)


@dataclass(frozen=True)
class FoundSet:
    """The words of a set that are single tokens, all spelled alike.

    places: of the words in the whole order. spelling: of the first one, with its space if it has one.
    """

    ordered: OrderedSet
    places: tuple[int, ...]
    tokens: tuple[int, ...]
    spelling: str

    @property
    def words(self) -> tuple[str, ...]:
        """Those that were found."""
        return tuple(self.ordered.words[place] for place in self.places)

    @property
    def missing(self) -> tuple[str, ...]:
        """Those that were not."""
        return tuple(word for place, word in enumerate(self.ordered.words) if place not in self.places)

    @property
    def distances(self) -> Int64[np.ndarray, "word word"]:
        """Steps between words in the whole order, the shorter way around a circle."""
        places = np.array(self.places, np.int64)
        steps = np.abs(places[:, None] - places)
        return np.minimum(steps, len(self.ordered.words) - steps) if self.ordered.cycle else steps


def find_set(tokenizer: PreTrainedTokenizerBase, ordered: OrderedSet) -> FoundSet:
    """Find the words' tokens in the one spelling that has most of them.

    Spellings: as given, lower case, capitalised; with a space in front or without. They are not mixed: tokens of one
    spelling are nearer to each other, whatever the order. Where the tokenizer sets the space as a token of its own, the
    token behind it is the word's. A word of several tokens is missing; its first piece never stands for it (spec, BUG
    A-1), and a token that two words share belongs to neither.
    """
    best = FoundSet(ordered, (), (), "")
    for cased in (str, str.lower, str.capitalize):
        for space in (" ", ""):
            spellings = [space + cased(word) for word in ordered.words]
            tokens = [token_of_form(tokenizer, spelling) for spelling in spellings]
            places = tuple(
                place for place, token in enumerate(tokens) if token is not None and tokens.count(token) == 1
            )
            if len(places) > len(best.places):
                found = tuple(token for place in places if (token := tokens[place]) is not None)
                best = FoundSet(ordered, places, found, spellings[places[0]])
    return best


@dataclass(frozen=True, eq=False)
class OrderStatistics:
    """How cosines fall with the distance in the order.

    pearson: of distance and cosine over all pairs of words; below 0 if neighbours in the order are alike. p: one-sided,
    from relabelled words. null_std: of `pearson` under relabelling. n_draws: relabellings; exact: these are all.
    adjacent, further: mean cosine at distance 1, and beyond. nearest: share of words whose nearest word stands beside
    them in the order; nearest_by_chance: what random orders have.
    """

    pearson: float
    p: float
    null_std: float
    n_draws: int
    exact: bool
    adjacent: float
    further: float
    nearest: float
    nearest_by_chance: float

    @property
    def gap(self) -> float:
        """Cosine of neighbours less that of others."""
        return self.adjacent - self.further


def cosine_matrix(rows: Float[Tensor, "word d_model"]) -> Float64[np.ndarray, "word word"]:
    """Cosines of all rows with all rows."""
    unit = unit_rows(rows.double())
    return (unit @ unit.T).clamp(-1, 1).cpu().numpy()


def order_statistics(
    cosines: Float64[np.ndarray, "word word"],
    distances: Int[np.ndarray, "word word"],
    permutations: int,
    rng: np.random.Generator,
) -> OrderStatistics:
    """Correlate, and test by relabelling the words.

    All relabellings are enumerated where they are at most `permutations`: then p is their share with a correlation as
    low (the identity included); else p = (1 + count) / (1 + permutations) (Phipson and Smyth 2010).

    NaN where all words have one cosine or one distance. Raises ValueError for fewer than 4 words.
    """
    n = len(cosines)
    if n < FEWEST_WORDS:
        raise ValueError(f"{n} words: an order needs at least {FEWEST_WORDS}")
    above = np.triu_indices(n, 1)
    values, steps = cosines[above], distances[above].astype(float)
    deviations = np.zeros((n, n))
    deviations[above] = steps - steps.mean()
    scale = np.linalg.norm(deviations[above]) * np.linalg.norm(values - values.mean())
    exact = math.factorial(n) <= permutations
    adjacent, further = values[steps == 1], values[steps > 1]
    nearest, by_chance = _nearest(cosines, distances)
    if np.ptp(values) < _ROUNDING or np.ptp(steps) == 0 or len(adjacent) == 0 or len(further) == 0:
        pearson, p, null_std, n_draws = math.nan, math.nan, math.nan, 0
    else:
        symmetric = (deviations + deviations.T) / 2
        pearson = float((symmetric * cosines).sum() / scale)
        null = np.concatenate(
            [
                np.einsum("ij,bij->b", symmetric, cosines[order[:, :, None], order[:, None, :]]) / scale
                for order in _relabellings(n, permutations, exact, rng)
            ]
        )
        # relabellings that keep all distances have the same correlation but for rounding
        as_low, n_draws = int((null <= pearson + 1e-12).sum()), len(null)
        p = as_low / n_draws if exact else (1 + as_low) / (1 + n_draws)
        null_std = float(null.std())
    return OrderStatistics(
        pearson=pearson,
        p=p,
        null_std=null_std,
        n_draws=n_draws,
        exact=exact,
        adjacent=float(adjacent.mean()) if len(adjacent) else math.nan,
        further=float(further.mean()) if len(further) else math.nan,
        nearest=nearest,
        nearest_by_chance=by_chance,
    )


def _relabellings(
    n: int, permutations: int, exact: bool, rng: np.random.Generator
) -> Iterator[Int64[np.ndarray, "draw word"]]:
    size = max(1, _BATCH_BYTES // (8 * n * n))
    orders = np.array(list(all_permutations(range(n)))) if exact else None
    total = permutations if orders is None else len(orders)
    for start in range(0, total, size):
        count = min(size, total - start)
        yield rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1) if orders is None else orders[start:][:count]


def _nearest(cosines: Float64[np.ndarray, "word word"], distances: Int[np.ndarray, "word word"]) -> tuple[float, float]:
    """Share of words whose nearest word is a neighbour in the order, and the share by chance."""
    n = len(cosines)
    others = cosines.copy()
    np.fill_diagonal(others, -np.inf)
    beside = distances == 1
    return float(beside[np.arange(n), others.argmax(1)].mean()), float(beside.sum(1).mean() / (n - 1))


def testable(found: Sequence[FoundSet]) -> list[FoundSet]:
    """Sets with enough words to say something of their order."""
    return [each for each in found if len(each.places) >= FEWEST_WORDS]
