"""Linear CKA of layers and sources over the same items."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.topology.comparisons.layer_matrices import cka_matrices

# the unbiased HSIC divides by n (n - 3)
FEWEST = 4


def linear_cka_matrices(
    states: Sequence[Float[Tensor, "item _"]],
) -> tuple[Float[np.ndarray, "state state"], Float[np.ndarray, "state state"]]:
    """Linear CKA of every state with every other (Kornblith et al. 2019), and the debiased one.

    With fewer items than dimensions the first is far above 0 for states that have nothing to do with each other; the
    second (unbiased HSIC, Song et al. 2012, eq. 5) is about 0 for them, and may be below. NaN where items don't vary.

    Raises StrataError for fewer than 4 items, or states that are not finite.
    """
    if any(not bool(state.isfinite().all()) for state in states):
        raise StrataError("CKA: states hold NaN or inf: leave that layer out with layers=[...]")
    if not states or len(states[0]) < FEWEST:
        raise StrataError(f"CKA needs {FEWEST} items or more, here are {len(states[0]) if states else 0}")
    return cka_matrices([state.double().cpu().numpy() for state in states])
