"""How alike are the states of one row at all layers, and where do they stop changing."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Activation Lab's mark of a state that no longer turns (its viewer's effective depth)
SETTLED = 0.99


def cross_layer_cosine(states: Float[Tensor, "layer row d"]) -> Float[Tensor, "row layer layer"]:
    """Cosines of a row's state at each layer with its state at each other.

    1 on the diagonal by definition; a state of norm 0 has no direction, and 0 with all others. NaN stays NaN.
    """
    rows = states.float().transpose(0, 1)
    norms = rows.norm(dim=-1, keepdim=True)
    unit = rows / torch.where(norms == 0, 1.0, norms)
    cosines = (unit @ unit.transpose(1, 2)).clamp(-1, 1)
    known = ~rows.isnan().any(-1)
    return torch.where(torch.eye(len(states), dtype=torch.bool, device=states.device) & known[:, :, None], 1.0, cosines)


def without_mean(states: Float[Tensor, "layer row d"]) -> Float[Tensor, "layer row d"]:
    """The states about their mean over rows at each layer: what all rows share is gone."""
    return states - states.mean(1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Convergence:
    """How states change between adjacent captured layers a -> b.

    cosine: of h_a and h_b, 0 where one is 0. change: |h_b - h_a| / |h_a|, inf where h_a is 0 and h_b is not.
    depth: the first layer from which on all adjacent cosines are at least SETTLED; the last layer where they never are.
    """

    cosine: Float[Tensor, "step row"]
    change: Float[Tensor, "step row"]
    depth: list[int]


def convergence(states: Float[Tensor, "layer row d"], layers: Sequence[int]) -> Convergence:
    """Adjacent cosines, relative changes and the depth at which each row settles (spec section 3.8)."""
    before, after = states[:-1].float(), states[1:].float()
    norms = before.norm(dim=-1) * after.norm(dim=-1)
    cosine = torch.where(norms == 0, 0.0, (before * after).sum(-1) / norms).clamp(-1, 1)
    difference, size = (after - before).norm(dim=-1), before.norm(dim=-1)
    change = torch.where(difference == 0, 0.0, difference / size)
    unsettled = ~(cosine >= SETTLED)
    first = [int(row.nonzero().max()) + 1 if row.any() else 0 for row in unsettled.T]
    return Convergence(cosine, change, [layers[place] for place in first])
