"""The conversations of a prompt: itself, and itself with its turns in random orders."""

import math
import random
from dataclasses import dataclass

from src.scenarios.scenario import Message, Prompt


@dataclass(frozen=True)
class Reading:
    """One conversation to capture: what to give to `capture_conversation`.

    order: None for the prompt itself, which is gone on with; else which of its turns comes at each place, and the model
    only reads it (generate = False).
    """

    name: str
    prompt: Prompt
    order: list[int] | None = None

    @property
    def generate(self) -> bool:
        """Whether the model goes on with it."""
        return self.order is None


def readings_of(prompt: Prompt, name: str, seed: int | None) -> list[Reading]:
    """The prompt, then `prompt.orders` versions of it (NAME_order_1, ...), drawn from the seed, no two alike.

    A turn is a message of the user with what follows it; what stands before the first one (a system message) stays
    there, and so does a last turn without an answer. There are fewer where there are no more orders.
    """
    readings = [Reading(name, prompt)]
    if not prompt.orders:
        return readings
    opening, turns = turns_of(prompt.messages)
    closing = turns[-1:] if len(turns) > 1 and len(turns[-1]) < len(turns[0]) else []
    movable = len(turns) - len(closing)
    draws = random.Random(f"{seed}/{name}")
    seen, fixed = {tuple(range(movable))}, list(range(movable, len(turns)))
    while len(readings) <= prompt.orders and len(seen) < math.factorial(movable):
        order = draws.sample(range(movable), movable)
        if tuple(order) in seen:
            continue
        seen.add(tuple(order))
        messages = [*opening, *(message for turn in [*order, *fixed] for message in turns[turn])]
        shuffled = prompt.model_copy(
            update={"messages": messages, "orders": 0, "run_at_each_message": False, "name": None}
        )
        readings.append(Reading(f"{name}_order_{len(readings)}", shuffled, [*order, *fixed]))
    return readings


def turns_of(messages: list[Message]) -> tuple[list[Message], list[list[Message]]]:
    """What stands before the first message of a user, and the turns."""
    opening: list[Message] = []
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user":
            turns.append([message])
        elif turns:
            turns[-1].append(message)
        else:
            opening.append(message)
    return opening, turns
