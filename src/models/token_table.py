"""What text each row of an embedding matrix stands for, and which row stands for a word."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from transformers.tokenization_utils_base import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class TokenTable:
    """The rows of an embedding matrix with n_rows >= len(tokenizer).

    texts: decoded alone, with the space in front that a word-initial piece carries; "" of padding rows.
    special: of the tokenizer (all_special_ids, added control tokens). padding: rows that no token has.
    initial: tokens that begin a word. whole: tokens that are a fragment of no character (bytes).
    """

    texts: tuple[str, ...]
    special: Bool[np.ndarray, "row"]
    padding: Bool[np.ndarray, "row"]
    initial: Bool[np.ndarray, "row"]

    @property
    def n_rows(self) -> int:
        """Rows of the embedding matrix."""
        return len(self.texts)

    @property
    def counted(self) -> Int[np.ndarray, "token"]:
        """Ids that statistics are taken over: neither padding nor special."""
        return np.flatnonzero(~self.padding & ~self.special)


def token_table(tokenizer: PreTrainedTokenizerBase, n_rows: int) -> TokenTable:
    """Decode every token of a vocabulary alone."""
    n_tokens = min(len(tokenizer), n_rows)
    texts = [tokenizer.decode([token]) for token in range(n_tokens)] + [""] * (n_rows - n_tokens)
    special = np.zeros(n_rows, bool)
    special[[token for token in tokenizer.all_special_ids if token < n_rows]] = True
    padding = np.arange(n_rows) >= n_tokens
    return TokenTable(tuple(map(str, texts)), special, padding, ~special & ~padding)


def single_token(tokenizer: PreTrainedTokenizerBase, word: str) -> int | None:
    """The one token that a word is, as it stands inside a text; None if it takes several (or is unknown).

    Tried in this order: with a space in front, alone. Never the first piece of several (spec, BUG A-1).
    """
    for text in (f" {word}", word):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if isinstance(ids, Sequence) and len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
    return None
