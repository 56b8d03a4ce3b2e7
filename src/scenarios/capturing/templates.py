"""Conversations as token ids, as the model's chat template writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import jinja2
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.errors import StrataError
from src.scenarios.capturing.places import Wanted, shared_length
from src.scenarios.capturing.shared_text import SharedText

_REFUSALS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError)
PLAIN = (
    "no chat template: the messages' contents are joined by newlines, without roles, and the model goes on after them"
)


class Spoken(Protocol):
    """What a template needs of a message."""

    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def content(self) -> str: ...  # noqa: D102


class TemplateRefusal(Exception):
    """A chat template does not take these messages."""


class Renderer:
    """The chat template of a tokenizer, for one conversation.

    Without a template, contents are joined by newlines, as base models are prompted.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.plain = tokenizer.chat_template is None
        self._shared: SharedText | None = None

    def ids(self, messages: Sequence[Spoken], header: bool) -> list[int]:
        """Token ids of messages; header: with what asks for an answer (nothing, without a template).

        The template alone decides about BOS; without one, the tokenizer does. An end token that a tokenizer would add
        is not there. Beginnings of the conversation that was asked for first cost little. Raises TemplateRefusal.
        """
        text = self._text(messages, header)
        if self._shared is None:
            self._shared = SharedText(self._tokenizer, text)
        return [*self._beginning, *self._shared.ids(text)]

    def _text(self, messages: Sequence[Spoken], header: bool) -> str:
        if self.plain:
            return "\n".join(message.content for message in messages)
        spoken = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(spoken, add_generation_prompt=header, tokenize=False)
        except _REFUSALS as error:
            raise TemplateRefusal(" ".join(str(error).split()) or type(error).__name__) from None
        return str(text)

    @cached_property
    def _beginning(self) -> list[int]:
        """What is put before a text: by the tokenizer, where there is no template."""
        if not self.plain:
            return []
        whole = self._tokenizer.encode("a")
        body = self._tokenizer.encode("a", add_special_tokens=False)
        start = next((i for i in range(len(whole)) if whole[i : i + len(body)] == body), 0)
        return whole[:start]


@dataclass(frozen=True)
class Script:
    """A conversation as the model reads it.

    ids: all of it, with the header that asks for an answer. ends, answers: the token ids up to the end of each message,
    and with the header behind it; None where the template refuses them, or they have no token.
    """

    ids: list[int]
    ends: list[list[int] | None]
    answers: list[list[int] | None]
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def message_ends(self) -> list[int]:
        """Index in `ids` of each message's last token; -1 where the template writes it otherwise in the whole."""
        return [len(end) - 1 if end is not None and self.ids[: len(end)] == end else -1 for end in self.ends]

    def wanted(self, message: int, position: str) -> Wanted | None:
        """The tokens whose state is at a position of a message; None where there is none."""
        before = self.ends[message - 1] if message else []
        return wanted_state(self.ends[message], self.answers[message], before, position)


def wanted_state(
    end: list[int] | None, answer: list[int] | None, before: list[int] | None, position: str
) -> Wanted | None:
    """The tokens whose state is at a position of a message that ends with `end`, after messages that end with `before`.

    The first token of a sequence (BOS, or what takes its place) counts in no mean, unless there is no other.
    """
    if position == "answer":
        return None if answer is None else Wanted(answer)
    if end is None or (position == "mean" and before is None):
        return None
    if position == "end":
        return Wanted(end)
    return Wanted(end, min(max(shared_length(before or [], end), 1), len(end) - 1))


def write_script(renderer: Renderer, messages: Sequence[Spoken], name: str) -> Script:
    """The script of a conversation; `name` is for messages. Raises StrataError if the template refuses the whole."""
    try:
        whole = renderer.ids(messages, True)
    except TemplateRefusal as refusal:
        raise StrataError(
            f"{name}: the chat template of the model does not take this conversation ({refusal}): change its roles, or "
            "choose another model"
        ) from None
    if not whole:
        raise StrataError(f"{name} has no tokens: give its messages a content")
    notes: dict[str, object] = {"template": PLAIN} if renderer.plain else {}
    ends, answers = [], []
    for count in range(1, len(messages) + 1):
        for kept, header in ((ends, False), (answers, True)):
            try:
                ids = whole if header and count == len(messages) else renderer.ids(messages[:count], header)
            except TemplateRefusal as refusal:
                ids = []
                what = "a header for an answer after " if header else ""
                left_out(notes, f"the template refuses {what}messages 0..{count - 1} alone ({refusal})")
            else:
                if not ids:
                    left_out(notes, f"messages 0..{count - 1} have no token")
            kept.append(ids or None)
    return Script(whole, ends, answers, notes)


def left_out(notes: dict[str, object], reason: str) -> None:
    """Note that some snapshots don't exist."""
    reasons = notes.setdefault("left_out", [])
    assert isinstance(reasons, list)
    reasons.append(reason)


def readable(text: str) -> str:
    """A text that can be tokenised and written: halves of surrogate pairs become the replacement character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
