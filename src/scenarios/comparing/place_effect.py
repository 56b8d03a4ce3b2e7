"""Does a turn show its own label less the later it stands? Told from its text by the same turns in other orders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.scenarios.comparing.randomisation import permutation_p
from src.scenarios.comparing.turns import Turns


@dataclass(frozen=True, eq=False)
class PlaceEffect:
    """slope: change of the own label's excess per turn of place, within turns of the same text, at each layer.

    p: two-sided, with the places of a conversation given to another order of it; p_corrected: for all layers and
    sources together.
    """

    slope: Float[Tensor, "layer"]
    p: Float[Tensor, "layer"]
    p_corrected: Float[Tensor, "layer"]


def place_effects(
    turns: Sequence[Turns],
    values: Mapping[str, Sequence[Float[Tensor, "layer turn label"]]],
    usable: Sequence[Tensor],
    draws: int,
    seed: int,
) -> dict[str, PlaceEffect] | None:
    """Of each source; None if no labelled turn stands at two places.

    Under the null, orders of one conversation can exchange their places whole, so that what the turns of one reading
    have in common stays together.
    """
    texts: dict[tuple[object, ...], int] = {}
    rows = []  # conversation, text, place, label
    for number, one in enumerate(turns):
        said: Counter[tuple[object, ...]] = Counter()
        for turn, (message, label) in enumerate(zip(one.messages, one.labels, strict=True)):
            if label >= 0 and usable[number][turn]:
                key = (one.family, one.conversation.messages[message].content, label)
                said[key] += 1
                rows.append((number, texts.setdefault((*key, said[key]), len(texts)), turn, label))
    if not rows:
        return None
    number, text, turn, label = torch.tensor(rows).unbind(1)
    member = torch.nn.functional.one_hot(text, len(texts)).double()
    places = _exchanged_places(turns, number, text, turn, draws, seed)
    about = places - (places @ member / member.sum(0)) @ member.mT
    size = about.square().sum(-1)
    if not size[0] > 0:
        return None
    slopes = []
    for read in values.values():
        own = torch.stack(
            [read[n][:, t, k] for n, t, k in zip(*(x.tolist() for x in (number, turn, label)), strict=True)]
        )
        slopes.append(about.to(own) @ own / size.to(own)[:, None])
    slope = torch.stack(slopes, 1)
    p, together = permutation_p(slope[0].abs(), slope[1:].abs())
    return {
        source: PlaceEffect(slope[0, place].float(), p[place], together[place]) for place, source in enumerate(values)
    }


def _exchanged_places(
    turns: Sequence[Turns], number: Tensor, text: Tensor, turn: Tensor, draws: int, seed: int
) -> Float[Tensor, "draw+1 row"]:
    """Place of each row; and then that of the same text in another order of the conversation.

    A text that stands nowhere else there (a turn that could not be read) keeps its place.
    """
    generator = torch.Generator().manual_seed(seed + 2)
    families: dict[object, list[int]] = {}
    for place, one in enumerate(turns):
        families.setdefault(one.family, []).append(place)
    other = torch.arange(len(turns)).repeat(draws + 1, 1)
    for members in families.values():
        orders = torch.rand(draws, len(members), generator=generator).argsort(1)
        other[1:, members] = torch.tensor(members)[orders]
    where = torch.full((len(turns), int(text.max()) + 1), -1)
    where[number, text] = turn
    found = where[other[:, number], text]
    return torch.where(found >= 0, found, turn).double()
