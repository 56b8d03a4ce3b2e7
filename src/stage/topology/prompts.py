"""Files of prompts: texts that a model reads for a cloud, and labels of theirs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from src.errors import StrataError
from src.text import Document, TokenSequence, tokenize_documents

_KEYS = ("text", "prompt", "messages")


@dataclass(frozen=True)
class Prompts:
    """Texts or chats in the order of a file; labels: of each, None where the file has none."""

    documents: list[Document]
    labels: list[str] | None


def read_prompts(path: Path, chat_template: bool) -> Prompts:
    """Read .txt (one prompt a line) or .jsonl (a string, or an object with text, prompt or messages, perhaps a label).

    chat_template: a text becomes the message of a user. Empty lines are passed over.

    Raises:
        StrataError: no such file, another format, a line that is no prompt, labels for some prompts only, no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StrataError(f"prompts={path} can't be read ({reason})") from None
    if path.suffix not in (".txt", ".jsonl"):
        raise StrataError(f"prompts={path}: prompts stand in .txt (one a line) or .jsonl (one object a line)")
    documents: list[Document] = []
    labels: list[str | None] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            document, label = (line, None) if path.suffix == ".txt" else _prompt(line, f"prompts={path}:{number}")
            if chat_template and isinstance(document, str):
                document = [{"role": "user", "content": document}]
            documents.append(document)
            labels.append(label)
    if not documents:
        raise StrataError(f"prompts={path} holds no prompt")
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise StrataError(f"prompts={path}: {len(known)} of {len(labels)} prompts have a label; give all one, or none")
    return Prompts(documents, known or None)


def _prompt(line: str, place: str) -> tuple[Document, str | None]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StrataError(f"{place} is no JSON: {error}") from None
    if isinstance(record, str):
        return record, None
    record = record if isinstance(record, dict) else {}
    document: Any = next((record[key] for key in _KEYS if key in record), None)
    if not isinstance(document, str) and not _is_chat(document):
        raise StrataError(f"{place} is no prompt: write a string, or an object with one of {', '.join(_KEYS)}")
    label = record.get("label")
    if label is not None and not isinstance(label, str | int):
        raise StrataError(f"{place}: label {label!r} is no word and no number")
    return document, None if label is None else str(label)


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and isinstance(item.get("role"), str) and "content" in item for item in value)
    )


def tokenize_prompts(
    prompts: Prompts, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[TokenSequence], list[str] | None]:
    """The token sequences of prompts, and the label of each; those without a token of their own are left out.

    Raises:
        StrataError: no room in max_length, or a chat that the tokenizer can't render.
    """
    sequences = list(tokenize_documents(prompts.documents, tokenizer, max_length))
    labels = None if prompts.labels is None else [prompts.labels[sequence.document] for sequence in sequences]
    return sequences, labels
