"""The messages of one role in a conversation as a sequence of turns, with their labels and states."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.scenarios.states import Conversation


@dataclass(frozen=True, eq=False)
class Turns:
    """Messages of one role, in their order; replies that the model made are left out.

    messages: their indices in the conversation. labels: index of each one's label among those asked for, -1 for none.
    family: equal for conversations that hold the same messages, in whatever order.
    """

    conversation: Conversation
    role: str
    messages: list[int]
    labels: list[int]
    family: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.messages)

    def states(self, source: str, position: str) -> Float[Tensor, "layer turn width"]:
        """A source at one position of every turn. StrataError if that was not captured."""
        rows = {(shot.message, shot.position): row for row, shot in enumerate(self.conversation.snapshots)}
        wanted = [rows.get((message, position)) for message in self.messages]
        found = [row for row in wanted if row is not None]
        if len(found) < len(wanted):
            raise StrataError(
                f"{self.conversation.name}: position {position!r} of its messages was not captured: capture with "
                "capture.preset=message_ends and this position"
            )
        return self.conversation.snapshot_rows.get(source)[:, found]


def turns_of(conversation: Conversation, labels: Sequence[str], role: str) -> Turns:
    """The turns of a role."""
    spoken = [message for message in conversation.messages if not message.generated]
    places = [place for place, message in enumerate(spoken) if message.role == role]
    index = {label: place for place, label in enumerate(labels)}
    return Turns(
        conversation,
        role,
        places,
        [index.get(spoken[place].label or "", -1) for place in places],
        tuple(sorted((message.role, message.content) for message in spoken)),
    )
