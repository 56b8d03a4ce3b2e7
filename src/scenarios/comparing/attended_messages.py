"""Where a run's attention goes, message by message: the model's own weights, summed over the tokens of each message."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.scenarios.attended_places import attention_to_places, one_hot_places, places_of_keys
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
    """Shares of attention at each step of a run.

    None if attention was not captured, or where the template writes a message otherwise in the whole conversation than
    at its end, so that it can't be told which tokens are whose.
    """
    if ATTENTION not in run.generation.rows:
        return None
    weights = run.steps(ATTENTION).nan_to_num(0.0).mean(2, keepdim=True)  # heads
    after, steps = run.generation.after, run.generation.steps
    ends = run.conversation.message_ends[:after]
    if min(ends) < 0:
        return None
    read = [step.seq_len for step in steps]
    place = places_of_keys(ends, [after] * len(steps), read, weights.shape[-1])
    generated = torch.arange(weights.shape[-1]) >= steps[0].seq_len
    place[generated & (place == after + 1)] = after + 2
    return AttendedMessages(
        run.layers,
        [FIRST_TOKEN, *(str(index) for index in range(after)), HEADER, GENERATED],
        [None, *range(after), None, None],
        tokens=one_hot_places(place, after + 3).sum(1),
        by_step=attention_to_places(weights, place, after + 3)[:, :, 0],
    )
