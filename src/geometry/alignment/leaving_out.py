"""Predictions of chosen tokens, each by a map that was fitted on all the others."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from src.geometry.alignment.maps import Method, fit
from src.geometry.alignment.rows import Group, PairedRows
from src.geometry.alignment.scatter import Scatter, blocks


def left_one_out(
    rows: PairedRows,
    tokens: Int[ndarray, " token"],
    method: Method,
    alphas: Sequence[float],
    centre: Float[Tensor, "d_target"],
    device: torch.device | str,
) -> Float[Tensor, "token d_target"]:
    """Predictions less `centre`, each by a map fitted on the anchors and all tokens of ordered sets but itself.

    tokens: pairs of the group ORDERED. A pair is taken out of the sums (one fit for each, none of them sees the rows
    anew). Raises StrataError for a rotation with too few anchors.
    """
    anchors, val = rows.take(rows.of(Group.TRAIN, Group.ORDERED)), rows.take(rows.of(Group.VAL))
    whole = Scatter.of(anchors.source, anchors.target, device)
    checked = Scatter.of(val.source, val.target, device, (whole.source_centre, whole.target_centre))
    chosen = rows.take(tokens)
    x, y = (torch.cat(list(blocks(side, device))) for side in (chosen.source, chosen.target))
    predictions = []
    for one, other in zip(x, y, strict=True):
        rest = whole.without(one, other)
        found = fit(method, rest, checked.about(rest.source_centre, rest.target_centre), alphas)
        predictions.append((one - rest.source_centre) @ found.weight + rest.target_centre - centre)
    return torch.stack(predictions)
