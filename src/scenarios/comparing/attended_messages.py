"""Where a run's attention goes, message by message: the model's own weights, summed over the tokens of each message."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.scenarios.states import ATTENTION, Run

FIRST_TOKEN, HEADER, GENERATED = "first token", "header", "generated"


@dataclass(frozen=True, eq=False)
class AttendedMessages:
    """Attention of the last token before each generated one, as shares that add up to 1 over the places.

    places: what is attended to: the very first token by itself (where models park attention that they don't need), the
        messages (their index, without that token), the header that asks for the answer, and what was generated.
    messages: index of the message of each place; None where it is none.
    tokens: number of tokens of each place at each step. by_step: mean over heads.
    """

    layers: tuple[int, ...]
    places: list[str]
    messages: list[int | None]
    tokens: Float[Tensor, "step place"]
    by_step: Float[Tensor, "layer step place"]


def attended_messages(run: Run) -> AttendedMessages | None:
    """Shares of attention at each step of a run; None if attention was not captured."""
    if ATTENTION not in run.generation.rows:
        return None
    weights = run.steps(ATTENTION).mean(2)  # heads
    after = run.generation.after
    ends = run.conversation.message_ends[:after]
    prompt, length = run.generation.steps[0].seq_len, weights.shape[-1]
    # place of each key: message i holds the tokens up to its end, those after the last message are the header
    keys = torch.arange(length)
    place = 1 + torch.bucketize(keys, torch.tensor(ends))
    place[keys >= prompt] = after + 2
    place[0] = 0
    belongs = torch.nn.functional.one_hot(place, after + 3).to(weights.dtype)
    read = torch.tensor([step.seq_len for step in run.generation.steps])
    visible = (keys[None, :] < read[:, None]).to(weights.dtype)
    return AttendedMessages(
        run.layers,
        [FIRST_TOKEN, *(str(index) for index in range(after)), HEADER, GENERATED],
        [None, *range(after), None, None],
        tokens=visible @ belongs,
        by_step=weights.nan_to_num(0.0) @ belongs,
    )
