"""Where messages end, told from the token ids of a conversation's prefixes alone."""

from collections.abc import Sequence
from itertools import pairwise


def guessed_message_ends(prefixes: Sequence[Sequence[int]], n_messages: int, bos: int | None = None) -> list[int]:
    """Index of the last token of each message in the whole conversation.

    prefixes: ids of messages[:1], messages[:2], ... each followed by the header that asks for an answer; more than
    n_messages of them tell more about the header, which is the same after each.

    Where the header begins is told by the token that opens a message: that of the first one, if the header has it
    (ChatML, Llama 3, Gemma), else by the first token at which the next prefix goes on differently.
    """
    header = _header_length(prefixes, bos)
    return [max(0, len(prefix) - header - 1) for prefix in prefixes[:n_messages]]


def _header_length(prefixes: Sequence[Sequence[int]], bos: int | None) -> int:
    if len(prefixes) < 2 or not all(prefixes):
        return 0
    shared = _common([list(reversed(prefix)) for prefix in prefixes])
    first = list(prefixes[0])
    suffix, opening = first[len(first) - shared :], first[first[0] == bos :][:1]
    if opening and opening[0] in suffix:
        return suffix[::-1].index(opening[0]) + 1
    return min(
        [shared, *(len(one) - both for one, two in pairwise(prefixes) if (both := _common([one, two])) < len(one))]
    )


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with."""
    length = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return length
