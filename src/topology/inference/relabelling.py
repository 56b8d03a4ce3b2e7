"""Permutations for tests between clouds that keep together what is not independent: rows of one sequence or prompt."""

import numpy as np
from jaxtyping import Bool, Int

from src.errors import StrataError


def relabellings(
    n_first: int,
    n_second: int,
    draws: int,
    seed: int,
    units: Int[np.ndarray, " point"] | None = None,
    paired: bool = False,
) -> Bool[np.ndarray, "draw point"]:
    """Which points belong to the first cloud: as observed (row 0), then under `draws` relabellings of the null.

    Args:
        n_first: points of the cloud that stands first.
        n_second: points of the other.
        draws: random relabellings.
        seed: of the draws.
        units: what is exchanged as a whole, for each point of both clouds (its sequence or prompt); None = each point.
        paired: the units are the same in both clouds (None: point i of one and point i of the other), and each keeps or
            swaps the clouds of all of its points. Otherwise the labels of units are permuted, their number kept.

    Raises:
        StrataError: if units and design do not fit each other, or there are fewer than 2 units to exchange.
    """
    is_first = np.arange(n_first + n_second) < n_first
    if units is None and paired:
        if n_first != n_second:
            raise StrataError(
                f"clouds of {n_first} and {n_second} points have no pairs of points: name the unit of each point, or "
                "compare them unpaired"
            )
        units = np.tile(np.arange(n_first), 2)
    units = np.arange(len(is_first)) if units is None else np.asarray(units)
    if units.shape != is_first.shape:
        raise StrataError(f"{len(units)} units were named for {len(is_first)} points: name one for each point")
    names, unit_of = np.unique(units, return_inverse=True)
    in_first = np.bincount(unit_of, is_first, len(names)) > 0
    in_second = np.bincount(unit_of, ~is_first, len(names)) > 0
    both = in_first & in_second
    random = np.random.default_rng(seed)
    if paired:
        if not both.all():
            raise StrataError(
                f"{(~both).sum()} of {len(names)} units have points in one of the clouds only (the first is "
                f"{names[~both][0]}): leave them out, or compare the clouds unpaired"
            )
        _refuse_few(len(names))
        swapped = random.random((draws, len(names))) < 0.5
        drawn = is_first ^ swapped[:, unit_of]
    else:
        if both.any():
            raise StrataError(
                f"{both.sum()} of {len(names)} units have points in both clouds (the first is {names[both][0]}), so "
                "their labels can't be permuted: compare the clouds paired"
            )
        _refuse_few(int(min(in_first.sum(), in_second.sum())))
        drawn = random.permuted(np.tile(in_first, (draws, 1)), axis=1)[:, unit_of]
    return np.concatenate([is_first[None], drawn])


def shuffled_rows(
    units: Int[np.ndarray, " point"] | None, n_points: int, random: np.random.Generator
) -> Int[np.ndarray, " point"]:
    """A random order of the points in which units trade places as wholes, each with another one of its size.

    units: of each point; None = each point is one. A unit whose size no other has stays where it is.
    """
    if units is None:
        return random.permutation(n_points)
    order = np.arange(n_points)
    rows = unit_rows(units)
    by_size: dict[int, list[Int[np.ndarray, " row"]]] = {}
    for each in rows:
        by_size.setdefault(len(each), []).append(each)
    for alike in by_size.values():
        here = np.stack(alike)
        order[here] = here[random.permutation(len(here))]
    return order


def half_of_units(
    units: Int[np.ndarray, " point"] | None, n_points: int, random: np.random.Generator
) -> Int[np.ndarray, " row"]:
    """The points of a random half of the units, in their order; units None = each point is one."""
    if units is None:
        return np.sort(random.choice(n_points, n_points // 2, replace=False))
    rows = unit_rows(units)
    chosen = random.choice(len(rows), len(rows) // 2, replace=False)
    return np.sort(np.concatenate([rows[unit] for unit in chosen]))


def unit_rows(units: Int[np.ndarray, " point"]) -> list[Int[np.ndarray, " row"]]:
    """The points of each unit."""
    _, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    return np.split(np.argsort(unit_of, kind="stable"), np.cumsum(sizes)[:-1])


def _refuse_few(n_units: int) -> None:
    if n_units < 2:
        raise StrataError("a permutation test needs 2 or more units (sequences, prompts or points) in each cloud")
