"""What a feature's direction does to the model's predictions when nothing but the final norm comes after it.

The logit lens of a decoder direction d (nostalgebraist 2020): unembedding times d, the final norm's gain folded in. It
is read off the model's own head h as (h(s d) - h(-s d)) / 2s with s = sqrt(d_model): norms (RMSNorm, LayerNorm) don't
change with the scale of their input, so the odd part is the folded product for d of length 1, and biases drop out. Where
logits are soft-capped (Gemma 2), values are squeezed and their order is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.features.sae import Sae

_LOGITS_AT_ONCE = 2**24

Head = Callable[[Float[Tensor, "row d_model"]], Float[Tensor, "row d_vocab"]]


@dataclass(frozen=True)
class PromotedTokens:
    """The tokens whose logits a feature raises and lowers most, strongest first, with the effect per unit length."""

    promoted: tuple[tuple[int, float], ...]
    suppressed: tuple[tuple[int, float], ...]


def promoted_tokens(
    sae: Sae, features: list[int], head: Head, n_tokens: int, d_vocab: int, dtype: torch.dtype
) -> list[PromotedTokens]:
    """For each feature the n_tokens tokens that it promotes most, and those that it suppresses most.

    head: logits from the output of the last block, in the model's dtype. d_vocab: token ids from here on are padding of
    the embedding, which no tokenizer gives. A direction that is 0 promotes nothing.
    """
    found: list[PromotedTokens] = []
    directions = sae.decoder[torch.tensor(features, device=sae.decoder.device)].float()
    directions = directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-12)
    scale = sae.d_model**0.5
    for batch in directions.split(max(1, _LOGITS_AT_ONCE // (2 * d_vocab))):
        there = (batch * scale).to(dtype)
        effect = (head(there).float() - head(-there).float())[:, :d_vocab] / (2 * scale)
        n = min(n_tokens, effect.shape[1])
        up, down = (side.cpu() for side in effect.topk(n)), (side.cpu() for side in (-effect).topk(n))
        for raised, up_ids, lowered, down_ids in zip(*up, *down, strict=True):
            promoted = tuple(zip(up_ids.tolist(), raised.tolist(), strict=True))
            suppressed = tuple(zip(down_ids.tolist(), (-lowered).tolist(), strict=True))
            found.append(PromotedTokens(promoted, suppressed))
    return found


def nearest_features(sae: Sae, features: list[int], n: int) -> list[list[tuple[int, float]]]:
    """For each feature the n others of the SAE whose decoder directions have the largest cosine with its own."""
    decoder = sae.decoder.float()
    decoder = decoder / decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
    n = min(n, sae.n_features - 1)
    chosen, found = torch.tensor(features, device=decoder.device), []
    for batch in chosen.split(max(1, _LOGITS_AT_ONCE // sae.n_features)):
        cosine = decoder[batch] @ decoder.T
        cosine[torch.arange(len(batch), device=batch.device), batch] = -torch.inf
        values, ids = cosine.topk(n)
        found += [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), values.tolist(), strict=True)]
    return found
