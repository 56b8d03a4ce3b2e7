"""Learning rates over the steps, and how far they can carry a parameter."""

import math
from collections.abc import Iterable


def rate_factor(step: int, n_steps: int, warm_up: float) -> float:
    """What the full rate is multiplied with at a step (from 0): linear warm-up, then a cosine to 0.

    warm_up: share of the steps over which the rate grows.
    """
    growing = max(1, round(warm_up * n_steps))
    if step < growing:
        return (step + 1) / growing
    done = (step - growing) / max(1, n_steps - growing)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def reach(rates: Iterable[float]) -> float:
    """About how far a parameter can be from where it began after steps of Adam at these rates: their sum.

    Adam moves a parameter by about its rate a step, whatever the size of the gradient, and only by more where gradients
    shrink or are rare (Kingma and Ba 2015, section 2.1). So a strength that ends at its reach says where training
    stopped, not where it was going (spec G9, BUG G-11).
    """
    total = 0.0
    for rate in rates:  # in order, so that a run that goes on adds up to the same bits
        total += rate
    return total
