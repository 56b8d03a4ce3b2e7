"""Where tokens look: entropy, sinks, and which message is read."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def visible_keys(
    attention: Float[Tensor, "layer row head key"], n_keys: Int[Tensor, "row"]
) -> Int[Tensor, "layer row"]:
    """How many keys each row can see at each layer, of the n_keys up to its own token.

    A sliding or chunked window hides the first ones: keys before the first that any head gives weight to.
    """
    seen = (attention > 0).any(2)
    first = seen.int().argmax(-1)
    return (n_keys - first).clamp(min=1)


def normalised_entropy(
    attention: Float[Tensor, "layer row head key"], visible: Int[Tensor, "layer row"]
) -> Float[Tensor, "layer row head"]:
    """-sum a log a / log(visible keys): 0 = one key, 1 = all alike. NaN for rows that see one key alone.

    Weights are brought to sum 1 first (half precision, and heads with a sink of their own, leave another sum).
    """
    weights = attention.float()
    weights = weights / weights.sum(-1, keepdim=True)
    entropy = torch.special.entr(weights).sum(-1)
    most = visible.float().log()[:, :, None]
    return torch.where(most > 0, entropy / most, torch.nan)


def sink_share(attention: Float[Tensor, "layer row head key"]) -> Float[Tensor, "layer row head"]:
    """Attention to the first token (BOS, where there is one): Xiao et al. 2024, "Efficient Streaming ... Sinks"."""
    return attention[..., 0].float()


def attention_to_spans(
    attention: Float[Tensor, "layer row head key"], spans: Sequence[tuple[int, int]]
) -> Float[Tensor, "layer row head span"]:
    """Attention summed over the tokens of each span [start, stop)."""
    weights = attention.float()
    return torch.stack([weights[..., start:stop].sum(-1) for start, stop in spans], -1)


def even_share(spans: Sequence[tuple[int, int]], n_keys: Int[Tensor, "row"]) -> Float[Tensor, "row span"]:
    """What each span would get if all keys up to a row's own token were looked at alike: the spans' share of them."""
    starts, stops = (torch.tensor(ends, device=n_keys.device) for ends in zip(*spans, strict=True))
    inside = torch.minimum(stops[None], n_keys[:, None]) - starts[None]
    return inside.clamp(min=0) / n_keys[:, None]
