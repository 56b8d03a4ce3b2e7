"""Texts that a model reads to say what it makes of a word, and which of their tokens stand for it (spec D2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from src.activations.token_choice import ChosenTokens
from src.errors import StrataError
from src.geometry.words.matching import Word
from src.text import Keep, TokenSequence

WORD, DEFINITION = "{word}", "{definition}"


@dataclass(frozen=True, eq=False)
class Passages:
    """Token sequences and the tokens in them that are averaged: point i is the representation of words[i].

    Several representations of the same words may share the sequences: then points number len(words) times so many.
    sequences: None where they lie in a store.
    """

    sequences: list[TokenSequence] | None
    chosen: ChosenTokens
    words: Int64[np.ndarray, "word"]


def in_carriers(
    words: Sequence[Word], tokenizer: PreTrainedTokenizerBase, carriers: Sequence[str], max_length: int
) -> Passages:
    """Each word in each carrier sentence; its own tokens stand for it, averaged over carriers.

    Raises:
        StrataError: a carrier without {word}, or one so long that the word is cut off.
    """
    texts: list[tuple[str, int, int]] = []
    for word in words:
        for carrier in carriers:
            before, found, after = carrier.partition(WORD)
            if not found:
                raise StrataError(f"lexicon.carriers: {carrier!r} has no {WORD}")
            texts.append((before + word.surface + after, len(before), len(before) + len(word.surface)))
    sequences, spans = _tokenized(texts, tokenizer, max_length)
    for (text, _, _), span in zip(texts, spans, strict=True):
        if not len(span):
            raise StrataError(f"lexicon.carriers: the word is cut off from {text!r} at max_length={max_length}")
    points = np.repeat(np.arange(len(words)), len(carriers))
    return Passages(sequences, chosen_tokens(sequences, spans, points, len(words)), np.arange(len(words)))


def in_definitions(
    words: Sequence[Word],
    definitions: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_length: int,
) -> Passages:
    """The definition of each word's sense: point i the mean over its tokens, point n + i its last one.

    What the template puts around the definition is read and not averaged, and neither are special tokens and the first
    position of a text, whose state is like no other in many models. Words without a definition are left out.

    Raises:
        StrataError: a template without {definition}, or no definitions.
    """
    before, found, after = template.partition(DEFINITION)
    if not found:
        raise StrataError(f"lexicon.definition_template: {template!r} has no {DEFINITION}")
    defined = [place for place, definition in enumerate(definitions) if definition.strip()]
    texts = [(before + definitions[i] + after, len(before), len(before) + len(definitions[i])) for i in defined]
    sequences, spans = _tokenized(texts, tokenizer, max_length) if texts else ([], [])
    spans = [span[span > 0] if len(span) > 1 else span for span in spans]
    kept = [place for place, span in enumerate(spans) if len(span)]
    if not kept:
        raise StrataError(
            "the taxonomy has no definitions that the tokenizer knows: leave out definition_mean and _last"
        )
    sequences, spans = [sequences[place] for place in kept], [spans[place] for place in kept]
    n = len(kept)
    twice = chosen_tokens(
        [*sequences, *sequences], [*spans, *(span[-1:] for span in spans)], np.arange(2 * n), 2 * n
    ).moved(np.concatenate([np.repeat(np.arange(n), [len(span) for span in spans]), np.arange(n)]))
    return Passages(sequences, twice, np.array([defined[place] for place in kept]))


def chosen_tokens(
    sequences: Sequence[TokenSequence],
    positions: Sequence[Int64[np.ndarray, "chosen"]],
    points: Int64[np.ndarray, "sequence"],
    n_points: int,
) -> ChosenTokens:
    """Positions of each sequence, averaged into the point that the sequence belongs to."""
    lengths = [len(span) for span in positions]
    sequence = np.repeat(np.arange(len(sequences)), lengths)
    ids = [each.token_ids[span] for each, span in zip(sequences, positions, strict=True)]
    return choice_of(sequence, np.concatenate(positions), np.concatenate(ids), points[sequence], n_points)


def choice_of(
    sequence: Int64[np.ndarray, "token"],
    position: Int64[np.ndarray, "token"],
    token_id: Int64[np.ndarray, "token"],
    point: Int64[np.ndarray, "token"],
    n_points: int,
) -> ChosenTokens:
    """Tokens that are averaged into points."""
    label = np.full(n_points, -1)
    parts = [part.astype(np.int64) for part in (sequence, position, token_id, point)]
    return ChosenTokens(*parts, pooled=False, largest=False, label=label, labels=(), context=[])


def _tokenized(
    texts: Sequence[tuple[str, int, int]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[TokenSequence], list[Int64[np.ndarray, "position"]]]:
    """Sequences with the tokenizer's own tokens, and the positions of those that reach into a span of characters."""
    if not tokenizer.is_fast:
        raise StrataError(
            "this tokenizer can't tell which characters a token stands for: choose lexicon.representations=[static] "
            "or [static,contexts]"
        )
    encoded = tokenizer(
        [text for text, _, _ in texts],
        truncation=True,
        max_length=max_length,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    unknown = tokenizer.unk_token_id
    sequences, spans = [], []
    for place, (text, start, stop) in enumerate(texts):
        ids = np.array(encoded["input_ids"][place], np.int32)
        added = np.array(encoded["special_tokens_mask"][place], bool) | (ids == unknown)
        offsets = np.array(encoded["offset_mapping"][place], np.int64).reshape(-1, 2)
        # byte-level tokenizers count the space in front as a token's own: it may be one that is nothing else
        solid = np.array([bool(text[max(a, start) : min(b, stop)].strip()) for a, b in offsets.tolist()], bool)
        sequences.append(TokenSequence(place, ids, np.where(added, Keep.SPECIAL, Keep.COUNTED).astype(np.uint8)))
        spans.append(np.flatnonzero(solid & ~added))
    return sequences, spans
