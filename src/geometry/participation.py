"""Participation ratio of a covariance: how many dimensions share the variance."""

import math


def participation_ratio(trace: float, square: float) -> float:
    """(sum of eigenvalues)^2 / sum of their squares, from trace C and |C|_F^2; NaN without variance (spec A4)."""
    return trace**2 / square if square > 0 else math.nan


def unbiased_participation_ratio(trace: float, square: float, n: int) -> float:
    """The same with the bias of n samples removed from both moments, for Gaussian rows (spec A4, Wishart moments).

    trace, square: of the covariance with divisor n - 1. NaN for n < 3, and where chance explains all of |C|_F^2.

    With nu = n - 1: E[t1^2] and E[t2] of a Wishart matrix are solved for (tr S)^2 and tr S^2. Rows that depend on each
    other (tokens of one text) count as fewer than n, so some of the bias is left.
    """
    nu = n - 1
    if nu < 2:
        return math.nan
    squared_trace = (nu * (nu + 1) * trace**2 - 2 * nu * square) / ((nu - 1) * (nu + 2))
    trace_of_square = nu**2 / ((nu - 1) * (nu + 2)) * (square - trace**2 / nu)
    return squared_trace / trace_of_square if trace_of_square > 0 else math.nan
