"""Compiled coordinate descent for elastic nets that share one Gram matrix.

One column is solved at a time, on the few inputs that it may need (working sets: Massias, Gramfort and Salmon 2018,
"Celer"): cyclic coordinate descent (Friedman, Hastie and Tibshirani 2010, covariance updates), which finds the inputs
in use and their signs, takes turns with Newton steps on those inputs, which find the coefficients that correlated
inputs share out among each other, as descent alone would need thousands of sweeps to do.

Importing this module imports numba; the first call compiles, once per machine (numba's cache). All functions that are
compiled stand in this file: numba's cache sees no changes of other files. Arrays are float64 and C-contiguous.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

# A working set takes in as many inputs as are used already, and this many at least.
_NEW = 16
# A working set that lacks violating inputs is solved until its gap is this part of that on all inputs; the last one
# until its gap is this part of the goal.
_INNER, _FINAL = 0.3, 0.3
# A Newton step follows when the sweeps since the last have cost this share of what it costs, and this many at least.
_SHARE, _SWEEPS = 0.5, 3
# An input that the others in use explain but for this share of its square takes no part in a Newton step.
_DEPENDENT = 1e-12


def _compiled(function: Callable) -> Any:
    # sums may be reordered, which lets products fill the vector units; infinities keep their meaning
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the folder of this file nor a cache folder of the user's can be written to
        return njit(**options)(function)


@_compiled
def solve_columns(
    gram: np.ndarray,
    cross: np.ndarray,
    square: np.ndarray,
    l1: np.ndarray,
    l2: np.ndarray,
    weight: np.ndarray,
    converged: np.ndarray,
    first: int,
    last: int,
    max_iter: int,
    tol: float,
) -> None:
    """Solve columns first to last - 1 in place; see `coordinate_descent.descend`, which explains the arguments."""
    for column in range(first, last):
        converged[column] = _solve(
            gram, cross[column], l1[column], l2[column], square[column], weight[column], max_iter, tol * square[column]
        )


@_compiled
def _solve(gram, cross, l1, l2, square, weight, max_iter, goal):  # noqa: ANN001, ANN202
    """Whether the duality gap on all inputs came to the goal within max_iter sweeps; weight is written in place."""
    sweeps = 0
    while True:
        pull = cross.copy()  # X'(y - Xb), made anew each time: no rounding piles up
        for j in range(len(weight)):
            if weight[j] != 0:
                _add(-weight[j], gram[j], pull)
        gap = _gap(cross, pull, weight, square, l1, l2)
        if gap <= goal:
            return True
        if sweeps >= max_iter:
            return False
        inputs, missing = _working_set(gram, pull, weight, l1, l2)
        part = np.empty((len(inputs), len(inputs)))
        for i in range(len(inputs)):
            for k in range(len(inputs)):
                part[i, k] = gram[inputs[i], inputs[k]]
        coefficients = weight[inputs]
        target = max(_INNER * gap if missing else 0.0, _FINAL * goal)
        done, moved = _descend(
            part, cross[inputs], pull[inputs], coefficients, l1, l2, square, max_iter - sweeps, target
        )
        if not moved:  # to the last bit
            return False
        sweeps += done
        weight[inputs] = coefficients


@_compiled
def _working_set(gram, pull, weight, l1, l2):  # noqa: ANN001, ANN202
    """The inputs in use and those that would lower the objective most, and whether any that would is left out."""
    gain = np.zeros(len(weight))
    n_used = n_violating = 0
    for j in range(len(weight)):
        excess = abs(pull[j]) - l1
        if weight[j] != 0:
            gain[j] = np.inf
            n_used += 1
        elif excess > 0:
            gain[j] = excess * excess / (gram[j, j] + l2)
            n_violating += 1
    n_new = max(n_used, _NEW)
    least = 0.0
    if n_violating > n_new:
        place = len(weight) - n_used - n_new
        least = np.partition(gain, place)[place]
    return np.flatnonzero((gain > 0) & (gain >= least)), n_violating > n_new


@_compiled
def _descend(gram, cross, pull, weight, l1, l2, square, max_iter, target):  # noqa: ANN001, ANN202
    """Sweep and take Newton steps until the gap is at most target: (sweeps done, whether anything moved)."""
    factor = np.empty_like(gram)
    sweeps = since = 0
    moved = False
    while sweeps < max_iter:
        moves = _sweep(gram, pull, weight, l1, l2)
        moved |= moves
        sweeps += 1
        since += 1
        if not moves or _gap(cross, pull, weight, square, l1, l2) <= target:
            break
        used = np.flatnonzero(weight)
        # a Newton step takes about n^3 / 6 multiplications for n inputs in use, a sweep n for each input of the set
        if len(used) > 0 and since >= max(_SWEEPS, _SHARE * len(used) ** 2 / (6 * len(weight))):
            _newton_step(gram, pull, weight, used, l1, l2, factor)
            since = 0
    return sweeps, moved


@_compiled
def _sweep(gram, pull, weight, l1, l2):  # noqa: ANN001, ANN202
    """Minimise over each coefficient in turn; whether any changed. pull = X'(y - Xb) follows."""
    moves = False
    for j in range(len(weight)):
        old, square = weight[j], gram[j, j]
        alone = pull[j] + square * old
        if alone > l1:
            new = (alone - l1) / (square + l2)
        elif alone < -l1:
            new = (alone + l1) / (square + l2)
        else:
            new = 0.0
        if new != old:
            weight[j] = new
            _add(old - new, gram[j], pull)
            moves = True
    return moves


@_compiled
def _newton_step(gram, pull, weight, used, l1, l2, factor):  # noqa: ANN001, ANN202
    """Go from the coefficients in use towards the minimum among those of their signs, as far as the objective falls.

    On the way to it the objective is a quadratic, whose slope rises by 2 l1 |direction| where a coefficient changes
    sign: its minimum along the line is found exactly (the line search of Lee et al. 2006, "feature-sign search").
    """
    n = len(used)
    direction = np.empty(n)
    for i in range(n):
        for k in range(i + 1):
            factor[i, k] = gram[used[i], used[k]]
        factor[i, i] += l2
        coefficient = weight[used[i]]
        direction[i] = pull[used[i]] - l2 * coefficient - (l1 if coefficient > 0 else -l1)
    downhill = direction.copy()
    _solve_positive(factor, n, direction)
    along = np.zeros(len(weight))  # X'X direction
    for i in range(n):
        _add(direction[i], gram[used[i]], along)
    slope = curvature = 0.0
    crossing = np.empty(n)
    for i in range(n):
        slope -= direction[i] * downhill[i]
        curvature += direction[i] * (along[used[i]] + l2 * direction[i])
        crossing[i] = -weight[used[i]] / direction[i] if weight[used[i]] * direction[i] < 0 else np.inf
    if not (slope < 0 and curvature > 0):  # rounding is all that is left
        return
    zeroed = -1
    if crossing.min() * curvature < -slope:
        for i in np.argsort(crossing):
            if slope + crossing[i] * curvature >= 0:
                break
            slope += 2 * l1 * abs(direction[i])
            if slope + crossing[i] * curvature >= 0:  # the minimum is the kink
                zeroed = i
                break
    step = crossing[zeroed] if zeroed >= 0 else -slope / curvature
    for i in range(n):
        weight[used[i]] = 0.0 if i == zeroed else weight[used[i]] + step * direction[i]
    _add(-step, along, pull)


@_compiled
def _solve_positive(matrix, n, right):  # noqa: ANN001, ANN202
    """Solve in place by Cholesky's method, for the lower triangle of the first n rows; 0 for dependent unknowns.

    The diagonal of the factor holds inverses. Written out, since LAPACK would start threads of its own in every call.
    """
    for i in range(n):
        row = matrix[i]
        for j in range(i):
            row[j] = (row[j] - _dot(row[:j], matrix[j, :j])) * matrix[j, j]
        rest = row[i] - _dot(row[:i], row[:i])
        row[i] = 1 / np.sqrt(rest) if rest > _DEPENDENT * row[i] else 0.0
    for i in range(n):
        right[i] = (right[i] - _dot(matrix[i, :i], right[:i])) * matrix[i, i]
    for i in range(n - 1, -1, -1):
        right[i] *= matrix[i, i]
        _add(-right[i], matrix[i, :i], right[:i])


@_compiled
def _gap(cross, pull, weight, square, l1, l2):  # noqa: ANN001, ANN202
    """The duality gap, as `fista.Problems.gap` has it, of the inputs given. pull: X'(y - Xb)."""
    largest = size = squares = explained = along = 0.0
    for j in range(len(weight)):
        largest = max(largest, abs(pull[j] - l2 * weight[j]))
        size += abs(weight[j])
        squares += weight[j] * weight[j]
        explained += weight[j] * cross[j]
        along += weight[j] * pull[j]
    residual = max(square - explained - along, 0.0) + l2 * squares
    shrink = l1 / largest if largest > l1 else 1.0
    return (1 + shrink * shrink) / 2 * residual + l1 * size - shrink * (square - explained)


@_compiled
def _add(factor, row, total):  # noqa: ANN001, ANN202
    for k in range(len(row)):
        total[k] += factor * row[k]


@_compiled
def _dot(left, right):  # noqa: ANN001, ANN202
    total = 0.0
    for k in range(len(left)):
        total += left[k] * right[k]
    return total
