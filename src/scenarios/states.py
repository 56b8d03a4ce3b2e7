"""What is kept of a conversation: states of chosen tokens, the steps of a generation, and which token is what."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.hook_points import ATTENTION as ATTENTION
from src.hook_points import MLP_SOURCES as MLP_SOURCES
from src.hook_points import QKV_SOURCES as QKV_SOURCES
from src.hook_points import RESIDUAL_SOURCES as RESIDUAL_SOURCES
from src.hook_points import SOURCES as SOURCES

# [1, row, d_vocab]
LOGITS = "logits"


@dataclass(frozen=True, eq=False)
class Rows:
    """Activations of some tokens (rows) at some layers.

    layers: layer indices, ascending.
    arrays: for each source Float[Tensor, "layer row width"]; attention "layer row head key"; logits "1 row d_vocab".
        resid_pre holds only layers whose predecessor is not among `layers` (`get` puts it together).
    """

    layers: tuple[int, ...]
    arrays: Mapping[str, Float[Tensor, "layer row ..."]]

    def __contains__(self, source: str) -> bool:
        return source in self.arrays

    def __len__(self) -> int:
        return next(iter(self.arrays.values())).shape[1] if self.arrays else 0

    @property
    def sources(self) -> list[str]:
        """Sources that were kept, in the order of SOURCES."""
        return [source for source in SOURCES if source in self.arrays]

    def get(self, source: str) -> Float[Tensor, "layer row ..."]:
        """All layers of a source, in float32. Raises StrataError if it was not kept."""
        if source not in self.arrays:
            raise StrataError(
                f"{source} was not captured (there are {', '.join(self.arrays) or 'no states'}): capture the scenario "
                "with the group that holds it (capture.hidden_states, .qkv, .mlp, .attention_weights, .logits)"
            )
        array = self.arrays[source].float()
        if source != "resid_pre":
            return array
        own, before = iter(array), dict(zip(self.layers, self.arrays["resid_post"], strict=True))
        return torch.stack([before[layer - 1].float() if layer - 1 in before else next(own) for layer in self.layers])

    def take(self, rows: Sequence[int]) -> "Rows":
        """Some rows, in the order asked for."""
        return Rows(self.layers, {name: array[:, list(rows)] for name, array in self.arrays.items()})


def kept_resid_pre(layers: Sequence[int]) -> list[int]:
    """The layers whose resid_pre no other captured state tells: it is resid_post of the layer before."""
    return [layer for layer in layers if layer - 1 not in layers]


@dataclass(frozen=True)
class SpokenMessage:
    """A message as it was read. The reply of the model itself is `generated`."""

    role: str
    content: str
    label: str | None = None
    generated: bool = False


@dataclass(frozen=True)
class Snapshot:
    """Which state a row of `Conversation.snapshot_rows` is.

    message: index of the message, the first n of the conversation, then replies (one per generation).
    position: `end` of the message (its last token as the template writes it), `answer` (last token of the header that
        asks for an answer after it), or `mean` over its tokens.
    token: index of the token within the sequence that the model read; None for a mean.
    """

    message: int
    position: str
    token: int | None


@dataclass(frozen=True)
class TopToken:
    """One of the likeliest next tokens; logprob in nats."""

    id: int
    token: str
    logprob: float


@dataclass(frozen=True)
class Step:
    """One forward pass of a generation: the state of its last input token, and the token chosen from it.

    entropy: of the next-token distribution, in nats. effective_vocab = exp(entropy). seq_len: tokens read so far.
    """

    step: int
    kind: Literal["prefill", "decode"]
    input_token_ids: list[int]
    generated_token_id: int
    generated_token: str
    logprob: float
    seq_len: int
    entropy: float
    effective_vocab: float
    top1_prob: float
    top_k: list[TopToken] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Generation:
    """What the model went on with after the first `after` messages; `rows` has one row for each step.

    token_ids: all that was generated, the end token included if it came. text: decoded whole, without special tokens.
    """

    after: int
    token_ids: list[int]
    text: str
    ended: bool
    steps: list[Step]
    rows: Rows


@dataclass(frozen=True, eq=False)
class Conversation:
    """One conversation that a model has read, with its generations.

    messages: the conversation's, then the replies in the order of `generations`.
    token_ids: of the whole conversation with the header that asks for an answer. tokens: each decoded on its own.
    message_ends: index of the last token of each message of the conversation; -1 where the whole conversation is written
        otherwise than its beginning (a template that drops earlier thoughts), or not at all by itself.
    snapshots: what each row of snapshot_rows is. token_rows: every token of token_ids (preset full).
    order: of its turns, if they were shuffled (a control). control: it is neutral text.
    """

    name: str
    messages: list[SpokenMessage]
    token_ids: list[int]
    tokens: list[str]
    message_ends: list[int]
    snapshots: list[Snapshot]
    snapshot_rows: Rows
    generations: list[Generation]
    token_rows: Rows | None = None
    control: bool = False
    order: list[int] | None = None
    notes: dict[str, object] = field(default_factory=dict)

    def runs(self) -> Iterator["Run"]:
        """The runs, as Activation Lab counts them: one for each generation.

        Messages without a state at some position that was captured of others (the chat template refuses to end there)
        are not among a run's messages; `messages` has them all.
        """
        n = len(self.messages) - len(self.generations)
        captured = {(shot.message, shot.position) for shot in self.snapshots}
        positions = {position for _, position in captured}
        for place, generation in enumerate(self.generations):
            suffix = "" if len(self.generations) == 1 else f"_msg{generation.after}of{n}"
            read = [*range(generation.after), n + place]
            whole = [index for index in read if all((index, position) in captured for position in positions)]
            yield Run(f"{self.name}{suffix}", self, generation, whole, [self.messages[index] for index in whole])


@dataclass(frozen=True, eq=False)
class Run:
    """One generation, with the messages before it and its reply, of those that have states (see `Conversation.runs`).

    message_indices: where these messages are in the conversation.
    """

    name: str
    conversation: Conversation
    generation: Generation
    message_indices: list[int]
    messages: list[SpokenMessage]

    @property
    def all_indices(self) -> list[int]:
        """Where the messages before the generation and its reply are in the conversation, whether they have states."""
        conversation = self.conversation
        n = len(conversation.messages) - len(conversation.generations)
        return [*range(self.generation.after), n + conversation.generations.index(self.generation)]

    @property
    def layers(self) -> tuple[int, ...]:
        """Captured layers."""
        return self.generation.rows.layers

    def snapshots(self, source: str, position: str) -> Float[Tensor, "layer message width"]:
        """A source at one position of every message, reply included. StrataError if that was not captured."""
        conversation = self.conversation
        rows = {(shot.message, shot.position): row for row, shot in enumerate(conversation.snapshots)}
        try:
            wanted = [rows[index, position] for index in self.message_indices]
        except KeyError:
            kept = dict.fromkeys(shot.position for shot in conversation.snapshots)
            raise StrataError(
                f"{self.name}: position {position!r} of its messages was not captured (there are "
                f"{', '.join(kept) or 'none'}): capture with capture.preset=message_ends and this position"
            ) from None
        return conversation.snapshot_rows.get(source)[:, wanted]

    def steps(self, source: str) -> Float[Tensor, "layer step width"]:
        """A source at the last token of each step: the prompt's last token, then every generated token but the last."""
        return self.generation.rows.get(source)

    def initial(self, source: str) -> Float[Tensor, "layer width"]:
        """The state of the prompt's last token."""
        return self.steps(source)[:, 0]

    def final(self, source: str) -> Float[Tensor, "layer width"]:
        """The state of the last step: while the model reads the last generated token but one."""
        return self.steps(source)[:, -1]


@dataclass(frozen=True)
class ReferenceText:
    """Which text a reference row is of."""

    label: str
    example: int
    neutral: bool
    preview: str
    n_tokens: int


@dataclass(frozen=True, eq=False)
class References:
    """States of reference texts; `rows[position]` has one row for each text."""

    texts: list[ReferenceText]
    rows: Mapping[str, Rows]

    @property
    def labels(self) -> list[str]:
        """Labels that are not neutral, in their order."""
        return list(dict.fromkeys(text.label for text in self.texts if not text.neutral))

    def of(self, label: str) -> list[int]:
        """Rows of a label."""
        return [row for row, text in enumerate(self.texts) if text.label == label]

    @property
    def neutral(self) -> list[int]:
        """Rows of neutral texts."""
        return [row for row, text in enumerate(self.texts) if text.neutral]
