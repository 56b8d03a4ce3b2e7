"""Where tokens look: at the first token, at which message, or at what came after the messages."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def attention_to_places(
    attention: Float[Tensor, "layer row head key"], place_of_key: Int[Tensor, "row key"], n_places: int
) -> Float[Tensor, "layer row head place"]:
    """Attention summed over the keys of each place; keys whose place is below 0 belong to none."""
    belongs = one_hot_places(place_of_key, n_places).to(attention.device)
    return torch.einsum("lrhk,rkp->lrhp", attention.float(), belongs)


def one_hot_places(place_of_key: Int[Tensor, "row key"], n_places: int) -> Float[Tensor, "row key place"]:
    """1 where a key belongs to a place."""
    return (place_of_key[..., None] == torch.arange(n_places, device=place_of_key.device)).float()


def places_of_keys(
    message_ends: Sequence[int], read: Sequence[int], n_keys: Sequence[int], width: int
) -> Int[Tensor, "row key"]:
    """Where each key of each row stands: 0 = the first token, 1 + i = message i, then the rest; -1 = not there.

    The first token stands alone, since models park attention there that they don't need. The rest is what a row has
    read after the end of its messages: the header that asks for an answer, and what was generated.

    Args:
        message_ends: index of the last token of each message.
        read: how many of these messages each row has read to their end.
        n_keys: tokens up to and with each row's own.
        width: keys of the array.
    """
    keys, ends = torch.arange(width), torch.tensor(message_ends)
    rows = []
    for messages, length in zip(read, n_keys, strict=True):
        place = 1 + torch.bucketize(keys, ends[:messages])
        place[place == messages + 1] = len(ends) + 1
        place[0] = 0
        rows.append(torch.where(keys < length, place, -1))
    return torch.stack(rows)
