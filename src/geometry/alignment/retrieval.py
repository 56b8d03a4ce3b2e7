"""Is the predicted row nearest to its own token among all candidates? By cosine, and by CSLS, which is fair to hubs."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.directions import unit_rows

# Conneau et al. 2018, section 2.3
NEIGHBOURS = 10
_BLOCK = 2048


def retrieval(
    mapped: Float[Tensor, "candidate d"],
    target: Float[Tensor, "candidate d"],
    queries: Int[np.ndarray, " query"],
    ranks: Sequence[int] = (1, 10),
) -> dict[str, Float[np.ndarray, " query"]]:
    """Of each query, whether its own target is among the first `ranks`: `p_at_1`, `p_at_10`, `csls_p_at_1`, ...

    mapped, target: of all candidates (centred); candidate i is right for mapped row i. queries: rows that are asked.
    CSLS(x, y) = 2 cos(x, y) - r(x) - r(y), r the mean cosine with the 10 nearest of the other side (Conneau et al.
    2018, eq. 3), over all candidates. Equal scores share the place: of t that tie behind g better ones a hit within k
    counts min(1, max(0, (k - g) / t)). Memory: blocks of rows, never candidates x candidates.
    """
    x, y = unit_rows(mapped), unit_rows(target)
    index = torch.from_numpy(np.asarray(queries, np.int64)).to(x.device)
    k = min(NEIGHBOURS, len(y))
    near_x = torch.cat([(x[part] @ y.T).topk(k, dim=1).values.mean(1) for part in index.split(_BLOCK)])
    near_y = torch.cat([(part @ x.T).topk(k, dim=1).values.mean(1) for part in y.split(_BLOCK)])
    found: dict[str, list[Tensor]] = {}
    for part, near in zip(index.split(_BLOCK), near_x.split(_BLOCK), strict=True):
        similarity = x[part] @ y.T
        for prefix, scores in (("", similarity), ("csls_", 2 * similarity - near[:, None] - near_y)):
            own = scores.gather(1, part[:, None])
            # the same product in another order differs in its last bits
            margin = 1e-12
            better = (scores > own + margin).sum(1)
            ties = ((scores - own).abs() <= margin).sum(1)
            for rank in ranks:
                hit = ((rank - better) / ties).clamp(0, 1)
                found.setdefault(f"{prefix}p_at_{rank}", []).append(hit)
    return {name: torch.cat(parts).double().cpu().numpy() for name, parts in found.items()}


def chance(n_candidates: int, rank: int) -> float:
    """What guessing gives."""
    return min(1.0, rank / n_candidates)
