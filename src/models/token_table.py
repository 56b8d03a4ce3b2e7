"""What text each row of an embedding matrix stands for, and which row stands for a word."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# added tokens that no tokenizer calls special, and that stand in no text: <tool_call>, [PAD7], <|fim_prefix|>
_CONTROL = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")
# kept free in a vocabulary: [unused12], <unused3>, <|reserved_special_token_4|>
_RESERVED = re.compile(r"[<\[]\|?(unused|reserved|extra_id)[^\s<>\[\]]*[>\]]")


@dataclass(frozen=True, eq=False)
class TokenTable:
    """The rows of an embedding matrix with n_rows >= len(tokenizer).

    texts: what a token adds behind other text, with the space in front that a word-initial piece carries (also where
    the tokenizer leaves it unsaid: WordPiece, whole words); "" of padding rows. special: all_special_ids and added
    control tokens. padding: rows that no token has. initial: tokens that begin a word. fragment: pieces of a
    character (bytes).
    """

    texts: tuple[str, ...]
    special: Bool[np.ndarray, "row"]
    padding: Bool[np.ndarray, "row"]
    initial: Bool[np.ndarray, "row"]
    fragment: Bool[np.ndarray, "row"]

    @property
    def n_rows(self) -> int:
        """Rows of the embedding matrix."""
        return len(self.texts)

    @property
    def counted(self) -> Int[np.ndarray, "token"]:
        """Ids that statistics are taken over: neither padding nor special."""
        return np.flatnonzero(~self.padding & ~self.special)


def token_table(tokenizer: PreTrainedTokenizerBase, n_rows: int) -> TokenTable:
    """Decode every token of a vocabulary alone. Rows without a token may be anywhere: ids need not be contiguous."""
    known = sorted({int(token) for token in tokenizer.get_vocab().values() if 0 <= token < n_rows})
    padding = np.ones(n_rows, bool)
    padding[known] = False
    texts = [""] * n_rows
    for token, text in zip(known, _texts_behind_others(tokenizer, known), strict=True):
        texts[token] = text
    special = np.zeros(n_rows, bool)
    for token in special_tokens(tokenizer):
        if token < n_rows:
            special[token] = True
            texts[token] = texts[token].strip()
    initial = np.array([text[:1].isspace() and bool(text.strip()) for text in texts], bool)
    fragment = np.array([_REPLACEMENT in text for text in texts], bool)
    for token in np.flatnonzero(fragment):
        # U+FFFD itself is a character, where it is in the vocabulary
        fragment[token] = _encode(tokenizer, texts[token]) != [token]
    return TokenTable(tuple(texts), special & ~padding, padding, initial & ~special, fragment & ~special)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that stand for no text: the tokenizer's special ones, added ones in <> or [], and reserved ones."""
    added = {
        token
        for token, entry in tokenizer.added_tokens_decoder.items()
        if entry.special or _CONTROL.fullmatch(entry.content)
    }
    reserved = {token for name, token in tokenizer.get_vocab().items() if _RESERVED.fullmatch(name)}
    return sorted({int(token) for token in (*tokenizer.all_special_ids, *added, *reserved)})


def single_token(tokenizer: PreTrainedTokenizerBase, word: str) -> int | None:
    """The one token that a word is, as it stands inside a text; None if it takes several (or is unknown).

    Tried in this order: with a space in front, alone; a bare word boundary in front of the token is passed over.
    Never the first piece of several (spec, BUG A-1).
    """
    tokens = (token_of_form(tokenizer, form) for form in (f" {word}", word))
    return next((token for token in tokens if token is not None), None)


def token_of_form(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The one token that a text is, white space in front as written; None if it takes several (or is unknown).

    Where a tokenizer sets a token of white space alone in front (`▁` `5`), the other one is taken if it spells the
    whole text.
    """
    ids = _encode(tokenizer, text)
    if len(ids) > 1:
        ids = [token for token in ids if _decode(tokenizer, [token]).strip()]
    if len(ids) != 1 or not text.strip() or ids[0] in tokenizer.all_special_ids:
        return None
    # tokenizers may lower or strip accents; one without a token for the unknown leaves letters out
    return ids[0] if _plain(_decode(tokenizer, ids)) == _plain(text) else None


def _texts_behind_others(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """Decoded behind a plain token: alone, SentencePiece drops the leading space, and whole words have none."""
    if not tokens:
        return []
    letter = _encode(tokenizer, "a")
    anchor = letter[-1] if letter else tokens[0]
    before = _decode(tokenizer, [anchor])
    together = tokenizer.batch_decode([[anchor, token] for token in tokens], **_AS_IT_IS)
    texts = []
    for token, whole in zip(tokens, map(str, together), strict=True):
        alone = whole.removeprefix(before) if whole.startswith(before) else _decode(tokenizer, [token])
        # a token that decodes to nothing is shown as it is called
        texts.append(alone or str(tokenizer.convert_ids_to_tokens(token)))
    return texts


_AS_IT_IS: dict[str, Any] = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}


def _plain(text: str) -> str:
    """Without white space, accents and case."""
    letters = unicodedata.normalize("NFKD", text.strip())
    return "".join(sign for sign in letters if not unicodedata.combining(sign)).casefold()


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), **_AS_IT_IS))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)]
