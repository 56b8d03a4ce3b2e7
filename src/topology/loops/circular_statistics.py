"""What a circular coordinate has to do with labels: correlation, explained variance, order around the circle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, factorial

import numpy as np
from jaxtyping import Float, Int, Shaped

from src.errors import StrataError

_DRAWS = 999
# Permutations are drawn and counted this many at a time.
_AT_ONCE = 256
# Sums of squares that are rounding alone.
_NO_SPREAD = 1e-20

Turns = Float[np.ndarray, "point"]


@dataclass(frozen=True)
class LabelTest:
    """A statistic of coordinate and labels, beside those after permuting the labels over the points.

    Attributes:
        value: of the labels as they are.
        null_mean: over permutations.
        p: (1 + number of permutations with as large an absolute value) / (1 + permutations).
        n_points: with a coordinate; the others are left out.
    """

    value: float
    null_mean: float
    p: float
    n_points: int


@dataclass(frozen=True)
class OrderTest:
    """Do the classes stand around the circle in the given cyclic order?

    Attributes:
        order: classes (indices into the given order) as they follow each other around the circle, from class 0 on, in
            the direction in which more of them follow the given order.
        n_adjacent: neighbours in the given cyclic order that are neighbours around the circle; all of them: in order.
        p: the share of the (k - 1)! / 2 cyclic orders of k classes, either direction, with as many or more; exact.
        n_classes: k.
    """

    order: tuple[int, ...]
    n_adjacent: int
    p: float
    n_classes: int

    @property
    def in_order(self) -> bool:
        """Whether all classes stand in the given order, either direction."""
        return self.n_adjacent == self.n_classes


def cyclic_correlation(turns: Turns, labels: Turns, draws: int = _DRAWS, seed: int = 0) -> LabelTest:
    """The circular correlation of a coordinate with labels that are cyclic themselves, both in turns.

    Fisher and Lee's rho_T (1983, "A correlation coefficient for circular data", Biometrika 70): over pairs of points
    i, j with angles a, b the sum of sin(a_i - a_j) sin(b_i - b_j) over the root of the product of those of sin^2. It is
    in [-1, 1], does not depend on where the zeros are, and is negative where the directions are opposite.

    Args:
        turns: of each point; NaN are left out.
        labels: of each point, in turns: index / number of classes, as (weekday 0 .. 6) / 7.
        draws: permutations of the labels. Points that stem from one text are not exchangeable: take means first.
        seed: of the permutations.

    Raises:
        StrataError: if fewer than 3 points have a coordinate, or the numbers of points differ.
    """
    turns, labels = _covered(turns, labels)
    if np.isnan(circular_correlation(turns, labels)):
        raise StrataError("a coordinate or labels with a single value (or two opposite ones) have no correlation")
    along, across = _waves(turns), _waves(labels)
    unit = np.sqrt(_spread(along) * _spread(across))

    def rho(order: Int[np.ndarray, "draw point"]) -> Float[np.ndarray, "draw"]:
        return np.linalg.det(np.einsum("pa,dpb->dab", along, across[order])) / unit

    return _permuted(rho, len(turns), draws, seed)


def circular_correlation(first: Turns, second: Turns) -> float:
    """Fisher and Lee's rho_T of two coordinates in turns, none NaN: see `cyclic_correlation`.

    NaN where one of them has a single value, or two opposite ones. Sums over pairs of points come from sums over
    points: that of sin(a_i - a_j) sin(b_i - b_j) is the determinant of the 2 x 2 matrix of (cos a, sin a)' (cos b,
    sin b).
    """
    first, second = _waves(np.asarray(first)), _waves(np.asarray(second))
    spread = _spread(first) * _spread(second)
    return float(np.linalg.det(first.T @ second) / np.sqrt(spread)) if spread > _NO_SPREAD else float("nan")


def explained_by_label(
    turns: Turns, labels: Shaped[np.ndarray, "point"], draws: int = _DRAWS, seed: int = 0
) -> LabelTest:
    """The share R2 of the variance of (cos, sin) of a coordinate that lies between the classes of a label.

    Labels need no order. Arguments and errors as of `cyclic_correlation`.
    """
    turns, labels = _covered(turns, labels)
    codes = np.unique(labels, return_inverse=True)[1]
    waves = _waves(turns)
    centred = waves - waves.mean(axis=0)
    total = np.square(centred).sum()
    if total <= _NO_SPREAD:
        raise StrataError("a coordinate with a single value has no variance to explain")
    count = np.bincount(codes).astype(np.float64)
    member = np.eye(len(count))[codes]

    def share(order: Int[np.ndarray, "draw point"]) -> Float[np.ndarray, "draw"]:
        sums = np.einsum("pc,dpw->dcw", member, centred[order])
        return (np.square(sums).sum(axis=2) / count).sum(axis=1) / total

    return _permuted(share, len(turns), draws, seed)


def order_test(turns: Turns, labels: Int[np.ndarray, "point"], n_classes: int) -> OrderTest:
    """Compare the cyclic order of the classes' mean directions with the given one, 0 .. n_classes - 1.

    Under the null hypothesis all cyclic orders are equally likely.

    Raises:
        StrataError: if there are fewer than 4 classes, or one of them has no point with a coordinate.
    """
    if n_classes < 4:
        raise StrataError(f"{n_classes} classes have one cyclic order only: an order test needs 4 or more")
    turns, labels = _covered(turns, labels)
    count = np.bincount(labels, minlength=n_classes)
    if len(count) > n_classes or not count.all():
        raise StrataError(f"an order test needs points of all {n_classes} classes, and of no other: counts are {count}")
    sums = np.zeros(n_classes, dtype=complex)
    np.add.at(sums, labels, np.exp(2j * np.pi * turns))
    order = np.argsort(np.angle(sums), kind="stable")
    step = np.mod(np.roll(order, -1) - order, n_classes)
    forwards, backwards = int((step == 1).sum()), int((step == n_classes - 1).sum())
    order = order if forwards >= backwards else order[::-1]
    order = np.roll(order, -int(np.flatnonzero(order == 0)[0]))
    adjacent = forwards + backwards
    orders = orders_by_adjacency(n_classes)
    return OrderTest(tuple(order.tolist()), adjacent, sum(orders[adjacent:]) / sum(orders), n_classes)


def orders_by_adjacency(n_classes: int) -> Sequence[int]:
    """How many of the (k - 1)! / 2 cyclic orders of k >= 4 classes keep j = 0 .. k neighbours of a given order.

    By inclusion and exclusion: m of the k neighbours of a cycle, in r runs, are chosen in (k / r) C(m - 1, r - 1)
    C(k - m - 1, r - 1) ways, and kept by (k - m - 1)! 2^r / 2 orders, as each run may stand either way round.
    """
    k = n_classes
    kept = [factorial(k - 1) // 2]
    for m in range(1, k):
        ways = (
            (k * comb(m - 1, r - 1) * comb(k - m - 1, r - 1) // r) * (factorial(k - m - 1) * 2**r)
            for r in range(1, min(m, k - m) + 1)
        )
        kept.append(sum(ways) // 2)
    kept.append(1)
    return [sum((-1) ** (m - j) * comb(m, j) * kept[m] for m in range(j, k + 1)) for j in range(k + 1)]


def _covered(turns: Turns, labels: Shaped[np.ndarray, "point"]) -> tuple[Turns, Shaped[np.ndarray, "point"]]:
    turns, labels = np.asarray(turns, dtype=np.float64), np.asarray(labels)
    if turns.shape != labels.shape:
        raise StrataError(f"{len(turns)} points have a coordinate, and {len(labels)} a label: give one for each")
    has = np.isfinite(turns)
    if has.sum() < 3:
        raise StrataError(f"only {has.sum()} points have a coordinate: labels are compared over 3 or more")
    return turns[has], labels[has]


def _waves(turns: Turns) -> Float[np.ndarray, "point 2"]:
    return np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)


def _spread(waves: Float[np.ndarray, "point 2"]) -> float:
    """The sum of sin^2 of the differences of all pairs."""
    return float(np.linalg.det(waves.T @ waves))


def _permuted(
    statistic: Callable[[Int[np.ndarray, "draw point"]], Float[np.ndarray, "draw"]], n: int, draws: int, seed: int
) -> LabelTest:
    value = float(statistic(np.arange(n)[None])[0])
    random = np.random.default_rng(seed)
    null = np.concatenate(
        [
            statistic(random.permuted(np.tile(np.arange(n), (min(_AT_ONCE, draws - start), 1)), axis=1))
            for start in range(0, draws, _AT_ONCE)
        ]
    )
    # equal but for rounding is as large
    as_large = (np.abs(null) >= abs(value) - 1e-12).sum()
    return LabelTest(value, float(null.mean()), float((1 + as_large) / (1 + draws)), n)
