"""Tokens as a reader sees them."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase


def token_strings(tokenizer: PreTrainedTokenizerBase, token_ids: Iterable[int]) -> dict[int, str]:
    """The text that each token adds behind another one, with the space that it begins with, if it does.

    (SentencePiece drops the leading space of a text's first token, and tokenizers of whole words join with spaces.)
    Ids beyond the tokenizer become `<id>`.
    """
    ids = sorted({int(token) for token in token_ids})
    known = [token for token in ids if 0 <= token < len(tokenizer)]
    anchor = _anchor(tokenizer)
    options: dict[str, Any] = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    before = tokenizer.decode([anchor], **options)
    together = tokenizer.batch_decode([[anchor, token] for token in known], **options) if known else []
    found = {token: f"<{token}>" for token in ids}
    for token, text in zip(known, together, strict=True):
        whole = str(text)
        # a piece of a character decodes to nothing by itself
        alone = (
            whole.removeprefix(str(before)) if whole.startswith(str(before)) else tokenizer.decode([token], **options)
        )
        found[token] = str(alone) or str(tokenizer.convert_ids_to_tokens(token))
    return found


def _anchor(tokenizer: PreTrainedTokenizerBase) -> int:
    """A plain token to decode others behind: that of a letter, where there is one."""
    ids = tokenizer.encode("a", add_special_tokens=False)
    return int(ids[-1]) if ids else 0
