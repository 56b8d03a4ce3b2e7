"""The rows that an analysis looks at: steps of a generation, or the messages of a run at one position."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.scenarios.states import Rows, Run

POSITIONS = ("answer", "end", "mean")


@dataclass(frozen=True, eq=False)
class Items:
    """Some rows of a run.

    places: where they are in `rows`. numbers: of the steps, or of the messages within the run. words: the token that
    each step chose, or the role of each message. n_keys: tokens up to and with the row's own. targets: the token that
    each step chose. messages_read: how many of the run's messages each row has read to their end. n_keys and targets
    are None where there are none: of means, and of messages.
    """

    kind: Literal["steps", "messages"]
    rows: Rows
    places: list[int]
    numbers: list[int]
    words: list[str]
    messages_read: list[int]
    n_keys: list[int] | None = None
    targets: list[int] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def get(self, source: str, layers: Sequence[int] | None = None) -> Float[Tensor, "layer row ..."]:
        """A source at these rows, in float32; StrataError if it was not captured.

        layers: captured ones; None = all (and the one place of logits).
        """
        array = self.rows.get(source)
        if layers is not None:
            array = array[[self.rows.layers.index(layer) for layer in layers]]
        return array[:, self.places]


def step_items(run: Run, wanted: Sequence[int] | None = None) -> Items:
    """Steps of a run's generation; None = all. StrataError for steps that it does not have."""
    steps = run.generation.steps
    places = list(range(len(steps))) if wanted is None else list(wanted)
    if beyond := [step for step in places if not 0 <= step < len(steps)]:
        raise StrataError(f"steps: {run.name} has steps 0 to {len(steps) - 1}, not {', '.join(map(str, beyond))}")
    chosen = [steps[place] for place in places]
    return Items(
        "steps",
        run.generation.rows,
        places,
        places,
        [step.generated_token for step in chosen],
        [run.generation.after] * len(places),
        [step.seq_len for step in chosen],
        [step.generated_token_id for step in chosen],
    )


def message_items(run: Run, position: str) -> Items:
    """The messages of a run, its reply included, at one position; those that were captured there.

    Raises StrataError if none was.
    """
    shots, messages = run.conversation.snapshots, run.conversation.messages
    rows = {shot.message: row for row, shot in enumerate(shots) if shot.position == position}
    indices = _messages_of(run)
    numbers = [number for number, message in enumerate(indices) if message in rows]
    if not numbers:
        kept = ", ".join(dict.fromkeys(shot.position for shot in shots)) or "none"
        raise StrataError(
            f"position={position} of the messages of {run.name} was not captured (there are {kept}): capture with "
            f"capture.preset=message_ends capture.positions=[{position}]"
        )
    places = [rows[indices[number]] for number in numbers]
    tokens = [shots[place].token for place in places]
    return Items(
        "messages",
        run.conversation.snapshot_rows,
        places,
        numbers,
        [messages[indices[number]].role for number in numbers],
        [min(number + 1, run.generation.after) for number in numbers],
        None if None in tokens else [token + 1 for token in tokens if token is not None],
    )


def captured_position(run: Run) -> str | None:
    """The first of answer, end and mean that was captured of the run's messages."""
    messages = _messages_of(run)
    there = {shot.position for shot in run.conversation.snapshots if shot.message in messages}
    return next((position for position in POSITIONS if position in there), None)


def _messages_of(run: Run) -> list[int]:
    """The messages before a run's generation, then its reply (run.message_indices leaves out those without states)."""
    conversation, after = run.conversation, run.generation.after
    place = next(place for place, made in enumerate(conversation.generations) if made is run.generation)
    return [*range(after), len(conversation.messages) - len(conversation.generations) + place]
