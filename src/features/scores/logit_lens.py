"""What a feature's direction does to the model's predictions when nothing but the final norm comes after it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from src.features.sae import Sae
from src.models.unembedding import Unembedding

_NUMBERS_AT_ONCE = 2**25


@dataclass(frozen=True)
class PromotedTokens:
    """The tokens whose logits a feature raises and lowers most, strongest first: (token id, effect)."""

    promoted: tuple[tuple[int, float], ...]
    suppressed: tuple[tuple[int, float], ...]


def promoted_tokens(
    sae: Sae, features: Sequence[int], unembedding: Unembedding, n_tokens: int, d_vocab: int
) -> list[PromotedTokens]:
    """For each feature the tokens that it promotes most and those that it suppresses most.

    Logit lens (nostalgebraist 2020): effects are those of the decoder direction at length 1, with the final norm's
    gains folded in, before its division.
    d_vocab: token ids from here on are padding of the embedding, which no tokenizer gives.
    """
    directions = _unit_decoder(sae, features)
    found: list[PromotedTokens] = []
    for batch in directions.split(max(1, _NUMBERS_AT_ONCE // len(unembedding.weight))):
        effect = unembedding.logits(batch)[:, :d_vocab]
        n = min(n_tokens, effect.shape[1])
        sides = []
        for largest in (True, False):
            values, ids = effect.topk(n, largest=largest)
            sides.append([tuple(zip(*it, strict=True)) for it in zip(ids.tolist(), values.tolist(), strict=True)])
        found += [PromotedTokens(up, down) for up, down in zip(*sides, strict=True)]
    return found


def nearest_features(sae: Sae, features: Sequence[int], n: int) -> list[list[tuple[int, float]]]:
    """For each feature the n others of the SAE whose decoder directions have the largest cosine with its own."""
    decoder = _unit_decoder(sae, range(sae.n_features))
    n = min(n, sae.n_features - 1)
    found: list[list[tuple[int, float]]] = []
    chosen = torch.tensor(list(features), device=decoder.device)
    for batch in chosen.split(max(1, _NUMBERS_AT_ONCE // sae.n_features)):
        cosine = decoder[batch] @ decoder.T
        cosine[torch.arange(len(batch), device=batch.device), batch] = -torch.inf
        values, ids = cosine.topk(n)
        found += [list(zip(*it, strict=True)) for it in zip(ids.tolist(), values.tolist(), strict=True)]
    return found


def _unit_decoder(sae: Sae, features: Sequence[int]) -> torch.Tensor:
    decoder = sae.decoder[torch.tensor(list(features), device=sae.decoder.device)].float()
    return decoder / decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
