"""Documents to token sequences."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import jinja2
import numpy as np
from jaxtyping import Bool, Int32, UInt8
from transformers import PreTrainedTokenizerBase

from src.errors import StrataError
from src.text.documents import Document
from src.text.keep import Keep

BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1_000_000  # bounds the memory of a batch of long documents


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """What one forward pass sees of a document.

    document: index of the document in the dataset, from 0, with skipped and empty ones counted.
    roles: a `Keep` code for each token, COUNTED, BOS, SPECIAL or FIRST.
    """

    document: int
    token_ids: Int32[np.ndarray, "position"]
    roles: UInt8[np.ndarray, "position"]


@dataclass
class DocumentCounts:
    """How documents fared, filled in while the sequences are drawn.

    skipped: passed over at the start by request. read: all that came after, up to the end or the stop.
    empty: those of them without any text, which give no sequence. truncated: those that lost their end.
    """

    skipped: int = 0
    read: int = 0
    empty: int = 0
    truncated: int = 0


class _Rendered(NamedTuple):
    index: int
    text: str
    is_chat: bool


class _Tokenized(NamedTuple):
    """Token ids of a whole document: what the tokenizer puts before and after every text, and the text's own."""

    prefix: list[int]
    body: list[int]
    suffix: list[int]


def tokenize_documents(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    long_documents: Literal["truncate", "split"] = "truncate",
    skip_documents: int = 0,
    num_tokens: int | None = None,
    num_sequences: int | None = None,
    counts: DocumentCounts | None = None,
) -> Iterator[TokenSequence]:
    """Turn each document into one sequence of at most `max_length` tokens (or several, if split), in their order.

    BOS and other added tokens are the tokenizer's own: text gets what `tokenizer(text)` gives it, a chat what
    `tokenizer.apply_chat_template` gives it, where the template alone decides (no second BOS). All sequences of a
    split document get them, a chat's only the BOS, if it has one. There is no padding and no packing.

    long_documents: of a document that is too long, `truncate` keeps the beginning, `split` makes consecutive sequences.
    skip_documents: documents to pass over first.
    num_tokens: stop with the sequence that reaches this many tokens, BOS included; that sequence is kept whole.
    num_sequences: stop after this many sequences.
    counts: filled in on the way.

    Raises StrataError: no room in `max_length` beside the tokenizer's own tokens; a chat that cannot be rendered.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(pair=False)
    if room < 1:
        raise StrataError(
            f"max_length={max_length} leaves no room for text: the tokenizer adds {max_length - room} tokens of its own"
        )
    counts = DocumentCounts() if counts is None else counts
    sequences = _sequences(documents, tokenizer, max_length, long_documents == "split", skip_documents, counts)
    return _until(sequences, num_tokens, num_sequences)


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that decides how documents become token ids and roles, as plain values for a fingerprint.

    Ask for it before the tokenizer is used: calls may leave settings of theirs in it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = (
        json.dumps([repr(tokenizer), tokenizer.get_vocab()], sort_keys=True) if backend is None else backend.to_str()
    )
    return {
        "rules": hashlib.sha256(rules.encode()).hexdigest(),
        "bos": tokenizer.bos_token_id,
        "special": np.flatnonzero(_special_ids(tokenizer)).tolist(),
        "added": tokenizer("", return_attention_mask=False)["input_ids"],
        "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
        "chat_template": tokenizer.chat_template,
    }


def _until(
    sequences: Iterable[TokenSequence], num_tokens: int | None, num_sequences: int | None
) -> Iterator[TokenSequence]:
    tokens = 0
    for count, sequence in enumerate(sequences, start=1):
        yield sequence
        tokens += len(sequence.token_ids)
        if (num_tokens is not None and tokens >= num_tokens) or count == num_sequences:
            return


def _sequences(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    split: bool,
    skip_documents: int,
    counts: DocumentCounts,
) -> Iterator[TokenSequence]:
    is_special = _special_ids(tokenizer)
    bos = cast(int | None, tokenizer.bos_token_id)
    for batch in _batches(documents, tokenizer, skip_documents, counts):
        for rendered, tokenized in zip(batch, _tokenize(batch, tokenizer), strict=True):
            counts.read += 1
            if not rendered.text.strip() or not tokenized.body:
                counts.empty += 1
                continue
            pieces = _pieces(tokenized, max_length)
            if len(pieces) > 1 and not split:
                counts.truncated += 1
                pieces = pieces[:1]
            for piece in pieces:
                token_ids = np.array(piece, np.int32)
                yield TokenSequence(rendered.index, token_ids, _roles(token_ids, is_special, bos))


def _batches(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, skip_documents: int, counts: DocumentCounts
) -> Iterator[list[_Rendered]]:
    """Batches of only texts or only chats, bounded in documents and characters."""
    batch: list[_Rendered] = []
    characters = 0
    for index, document in enumerate(documents):
        if index < skip_documents:
            counts.skipped += 1
            continue
        rendered = _render(index, document, tokenizer)
        full = len(batch) == BATCH_DOCUMENTS or characters + len(rendered.text) > BATCH_CHARACTERS
        if batch and (full or batch[0].is_chat != rendered.is_chat):
            yield batch
            batch, characters = [], 0
        batch.append(rendered)
        characters += len(rendered.text)
    if batch:
        yield batch


def _render(index: int, document: Document, tokenizer: PreTrainedTokenizerBase) -> _Rendered:
    is_chat = not isinstance(document, str)
    if isinstance(document, str):
        text = document
    elif not any(message["content"] for message in document):
        text = ""
    elif tokenizer.chat_template is None:
        raise StrataError(
            f"document {index} is a chat, and the tokenizer has no chat template: choose the chat version of the "
            "model, or set dataset.text_column_name to a column of text"
        )
    else:
        try:
            text = str(tokenizer.apply_chat_template(document, tokenize=False))
        except (jinja2.TemplateError, TypeError, ValueError, RecursionError) as error:
            raise StrataError(f"document {index} does not fit the tokenizer's chat template: {error}") from None
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON may hold half a surrogate pair, which no tokenizer takes
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _Rendered(index, text, is_chat)


def _tokenize(batch: list[_Rendered], tokenizer: PreTrainedTokenizerBase) -> Iterator[_Tokenized]:
    is_chat = batch[0].is_chat
    encoding = tokenizer(
        [rendered.text for rendered in batch],
        add_special_tokens=not is_chat,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_special_tokens_mask=True,
        verbose=False,
    )
    for ids, added in zip(encoding["input_ids"], encoding["special_tokens_mask"], strict=True):
        start, stop = 0, len(ids)
        if is_chat:
            start = int(bool(ids) and ids[0] == tokenizer.bos_token_id)
        else:
            while start < stop and added[start]:
                start += 1
            while stop > start and added[stop - 1]:
                stop -= 1
        yield _Tokenized(ids[:start], ids[start:stop], ids[stop:])


def _pieces(tokenized: _Tokenized, max_length: int) -> list[list[int]]:
    prefix, body, suffix = tokenized
    size = max_length - len(prefix) - len(suffix)
    return [prefix + body[start : start + size] + suffix for start in range(0, len(body), size)]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> Bool[np.ndarray, "d_vocab"]:
    added = [token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special]
    special = [*tokenizer.all_special_ids, *added]
    mask = np.zeros(max(len(tokenizer), *special, 0) + 1, bool)
    mask[special] = True
    return mask


def _roles(
    token_ids: Int32[np.ndarray, "position"], is_special: Bool[np.ndarray, "d_vocab"], bos: int | None
) -> UInt8[np.ndarray, "position"]:
    roles = np.where(is_special[token_ids], Keep.SPECIAL, Keep.COUNTED).astype(np.uint8)
    if token_ids[0] == bos:
        roles[0] = Keep.BOS
    elif roles[0] == Keep.COUNTED:
        roles[0] = Keep.FIRST
    return roles
