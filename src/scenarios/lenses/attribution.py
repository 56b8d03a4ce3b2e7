"""Direct logit attribution: what each component of the residual stream adds to a token's logit.

Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits"); nostalgebraist 2020. The division of the final
norm is taken as it was, so what is left of norm and head is linear, and the parts add up:

    head output of t  =  sum over components c of  c' A w_t / s  +  b_t,

A the final norm's gains (a LayerNorm's removal of the mean too), w_t the head's row, s the norm's division, b_t what
norm and head add by themselves. What the model does after its head (soft cap, scale) is a part of its own.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.models.unembedding import HeadReading
from src.scenarios.lenses.decomposition import Decomposition


@dataclass(frozen=True, eq=False)
class Attribution:
    """Contributions to the logit of each row's token, or to the difference of two tokens' logits.

    components: in the order of the decomposition. rounding: of what the components leave of the final state. bias:
    b_t. after_head: what soft cap and scale change. logit: what the model gave. All in logits.
    error: |logit - sum of all parts|, in units of the largest of the logit and its parts, and at least 1.
    """

    components: Float[Tensor, "component row"]
    rounding: Float[Tensor, "row"]
    bias: Float[Tensor, "row"]
    after_head: Float[Tensor, "row"]
    logit: Float[Tensor, "row"]
    error: Float[Tensor, "row"]


def attribute(
    decomposition: Decomposition,
    head: HeadReading,
    logits: Float[Tensor, "row d_vocab"],
    tokens: Int[Tensor, "row"],
    instead_of: Int[Tensor, "row"] | None = None,
) -> Attribution:
    """Take the logit of a token for each row apart, or its lead over another token (`instead_of`).

    head: of the rows' final states (models.unembedding.read_head). logits: what the model gave for them.
    """
    device = head.divisor.device
    tokens, components = tokens.to(device), decomposition.components.to(device)
    others = None if instead_of is None else instead_of.to(device)
    rows = torch.arange(len(tokens), device=device)

    def lead(values: Float[Tensor, "row d_vocab"]) -> Float[Tensor, "row"]:
        own = values[rows, tokens]
        return own if others is None else own - values[rows, others]

    weight = head.unembedding.weight
    direction = weight[tokens] if others is None else weight[tokens] - weight[others]
    # in the space of the residual stream: what a component adds is its product with this
    readout = direction @ head.unembedding.fold.T / head.divisor[:, None]
    added = (components * readout).sum(-1)
    rounding = (decomposition.rest.to(device) * readout).sum(-1)
    bias = logits.new_zeros(len(tokens), dtype=torch.float32, device=device)
    if head.bias is not None:
        bias = lead(head.bias.expand(len(tokens), -1))
    logit = lead(logits.to(device, torch.float32))
    after_head = logit - (head.inputs * direction).sum(-1) - bias
    bias = bias + (head.offset * direction).sum(-1)
    parts = torch.cat([added, torch.stack([rounding, bias, after_head])])
    scale = parts.abs().amax(0).maximum(logit.abs()).clamp(min=1)
    error = (logit - parts.sum(0)).abs() / scale
    return Attribution(*(part.cpu() for part in (added, rounding, bias, after_head, logit, error)))


def runners_up(logits: Float[Tensor, "row d_vocab"], tokens: Int[Tensor, "row"]) -> Int[Tensor, "row"]:
    """The likeliest token of each row that is not its own."""
    return logits.float().scatter(-1, tokens[:, None], -torch.inf).argmax(-1)
