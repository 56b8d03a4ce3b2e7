"""How widely tokens look: entropy of their attention, and what they leave in a sink."""

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
