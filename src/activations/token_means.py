"""The mean state of every token of a vocabulary, over its counted occurrences in a store."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.store import ActivationStore
from src.hook_points import HookPoint
from src.text import Keep


def token_means(
    store: ActivationStore,
    point: HookPoint,
    at_least: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Int[np.ndarray, " token"], Float[Tensor, "token d_model"]]:
    """Ids of the tokens that are counted so often at least, ascending, and their mean states in float64.

    Two passes: one counts ids, one adds states up; memory holds the means and one array of one part. advance: is told
    the number of tokens done, in the second pass. Raises StrataError for a hook point that was not collected.
    """
    store.require([point])
    counts = np.zeros(0, np.int64)
    for part in store:
        here = np.bincount(part.token_ids[part.keep == Keep.COUNTED], minlength=len(counts))
        here[: len(counts)] += counts
        counts = here
    ids = np.flatnonzero(counts >= at_least)
    slot = np.full(len(counts), -1)
    slot[ids] = np.arange(len(ids))
    sums = torch.zeros(len(ids), store.layout.d_model, dtype=torch.float64)
    for part in store:
        tokens, keep = part.token_ids, part.keep
        rows = np.flatnonzero(keep == Keep.COUNTED)
        rows = rows[slot[tokens[rows]] >= 0]
        states = part.activations(point)
        for some in np.array_split(rows, max(1, len(rows) // 8192)):
            index = torch.from_numpy(some)
            sums.index_add_(0, torch.from_numpy(slot[tokens[some]]), states[index].double())
        advance(len(tokens))
    return ids, sums / torch.from_numpy(counts[ids])[:, None]
